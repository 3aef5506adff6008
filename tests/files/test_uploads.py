"""Uploads below any protocol: expiry, limits, restarts, and disks that fail at the wrong moment."""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from mhnos_runtime.errors import (
    Conflict,
    InvalidRequest,
    LimitReached,
    MhnosError,
    NotFound,
    Refused,
    Unavailable,
)
from mhnos_runtime.files import draft
from mhnos_runtime.files import uploads as module
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.draft import Condition, Draft
from mhnos_runtime.files.paths import PARTIAL_PREFIX
from mhnos_runtime.files.upload_records import Record, Records
from mhnos_runtime.files.uploads import (
    DONE_SECONDS,
    EXPIRY_SECONDS,
    RESTING_SECONDS,
    Checksum,
    State,
    Uploads,
    Wanted,
)

ME = "token:me"


class Clock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class Scene:
    """A workspace, its uploads, and the next server's uploads."""

    def __init__(self, workspace: Workspace, root: Path, state: Path) -> None:
        self.workspace, self.root, self.state, self.clock = workspace, root, state, Clock()
        self.uploads = self.next_server()

    def next_server(self) -> Uploads:
        self.uploads = Uploads(Records(self.state), self.workspace, self.clock)
        return self.uploads

    def create(self, path: str = "/f", length: int | None = 10, **values: object) -> Record:
        wanted = Wanted(path, length, **values)  # type: ignore[arg-type]
        return self.uploads.create(self.workspace, wanted, ME).record

    def send(self, record: Record, data: bytes) -> State:
        record = self.uploads.find(record.id, ME)
        with self.uploads.open(self.workspace, record) as opened:
            opened.write(data)
            return opened.finish()

    def offset(self, record: Record) -> int:
        return self.uploads.look(self.workspace, self.uploads.find(record.id, ME)).offset

    def partials(self) -> list[str]:
        return [path.name for path in self.root.rglob(PARTIAL_PREFIX + "*")]

    def records(self) -> list[str]:
        return os.listdir(self.state) if self.state.exists() else []


@pytest.fixture
def scene(workspace: Workspace, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(workspace, root, tmp_path_factory.mktemp("state") / "uploads")


def test_the_next_server_goes_on(scene: Scene) -> None:
    record = scene.create(mode=0o600, mtime_ms=5)
    scene.send(record, b"hello")
    scene.next_server()
    assert scene.offset(record) == 5
    state = scene.send(record, b"world")
    assert (scene.root / "f").read_bytes() == b"helloworld"
    assert state.record.done is not None
    assert (state.record.done.mode, state.record.done.mtime_ms) == (0o600, 5)
    scene.next_server()
    assert scene.uploads.find(record.id, ME).done == state.record.done
    assert scene.offset(record) == 10


def test_only_its_principal_has_it(scene: Scene) -> None:
    record = scene.create()
    for other in ("token:you", "operator", ""):
        with pytest.raises(NotFound):
            scene.uploads.find(record.id, other)


def test_a_grant_that_has_shrunk(scene: Scene) -> None:
    (scene.root / "a").mkdir()
    record = scene.create("/a/f")
    with pytest.raises(Refused):
        scene.uploads.open(scene.workspace.limited(["/b"]), record)
    with pytest.raises(Refused):
        scene.uploads.remove(scene.workspace.limited(["/b"]), record)
    scene.uploads.open(scene.workspace.limited(["/a"]), record).close()


def test_expiry(scene: Scene) -> None:
    record, other = scene.create(), scene.create("/g")
    assert list(scene.uploads.sweep()) == [None, None]
    assert len(scene.partials()) == 2
    scene.clock.ahead = EXPIRY_SECONDS + 60
    for act in (scene.uploads.open, scene.uploads.look):
        with pytest.raises(NotFound, match="no progress") as caught:
            act(scene.workspace, record)
        assert caught.value.code == "gone"
    list(scene.uploads.sweep(busy={other.id}))
    assert len(scene.partials()) == len(scene.records()) == 1
    list(scene.next_server().sweep())
    assert scene.partials() == scene.records() == []


def test_progress_puts_expiry_off(scene: Scene) -> None:
    record = scene.create()
    (partial,) = scene.root.glob(PARTIAL_PREFIX + "*")
    soon = scene.clock() + 1000
    os.utime(partial, (soon, soon))
    scene.clock.ahead = EXPIRY_SECONDS + 500
    list(scene.uploads.sweep())
    assert scene.offset(record) == 0


def test_finished_ones_are_forgotten_after_a_day(scene: Scene) -> None:
    record = scene.create()
    scene.send(record, b"0123456789")
    scene.clock.ahead = DONE_SECONDS + 60
    list(scene.uploads.sweep())
    assert scene.records() == []
    assert (scene.root / "f").exists()


def test_finished_ones_are_bounded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_DONE", 3)
    for number in range(6):
        scene.send(scene.create(f"/{number}", 1), b"x")
    assert len(scene.records()) == 3
    with pytest.raises(NotFound):
        scene.uploads.find("0" * 32, ME)


def test_what_cannot_be_reached_is_swept_later(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.create()
    scene.clock.ahead = EXPIRY_SECONDS + 60

    def fail(*_: object, **__: object) -> None:
        raise Unavailable("no workspace")

    with monkeypatch.context() as patched:
        patched.setattr(module, "discard_kept", fail)
        list(scene.uploads.sweep())
    assert len(scene.records()) == 1
    with monkeypatch.context() as patched:
        patched.setattr(module, "discard_kept", lambda *_: (_ for _ in ()).throw(InvalidRequest("odd")))
        list(scene.uploads.sweep())
    assert scene.records() == []


def test_limits(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UPLOADS_OF_ONE", 3)
    monkeypatch.setattr(module, "MAX_UPLOADS", 4)
    mine = [scene.create(f"/{number}") for number in range(3)]
    with pytest.raises(LimitReached, match="3 uploads of this token"):
        scene.create("/more")
    scene.uploads.create(scene.workspace, Wanted("/theirs", 1), "token:you")
    with pytest.raises(LimitReached, match="4 of all"):
        scene.uploads.create(scene.workspace, Wanted("/theirs2", 1), "token:you")
    assert len(scene.partials()) == len(scene.records()) == 4
    scene.uploads.remove(scene.workspace, mine[0])
    scene.create("/again")


def test_at_its_limit_the_one_that_rests_for_longest_gives_way(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_UPLOADS_OF_ONE", 2)
    first, second = scene.create("/1"), scene.create("/2")
    past = scene.clock() + RESTING_SECONDS / 2
    os.utime(scene.root / first.kept.name, (past, past))
    scene.clock.ahead = RESTING_SECONDS + 60
    scene.create("/3")
    assert scene.offset(first) == 0
    with pytest.raises(NotFound):
        scene.uploads.find(second.id, ME)


def test_killed_after_the_file_took_its_place(scene: Scene) -> None:
    record = scene.create()
    scene.send(record, b"012345678")
    with scene.uploads.open(scene.workspace, record) as opened:
        opened.write(b"9")
        opened.state()
    os.rename(scene.root / record.kept.name, scene.root / "f")
    scene.next_server()
    assert scene.offset(record) == 10
    assert scene.uploads.find(record.id, ME).done is not None
    assert scene.records() == [f"{record.id}.json"]


@pytest.mark.parametrize("length", [10, 5])
def test_another_file_in_its_place_is_not_taken_for_it(scene: Scene, length: int) -> None:
    record = scene.create(length=length)
    if length == 10:
        (scene.root / "f").write_bytes(b"0123456789")
        (scene.root / record.kept.name).unlink()
    else:
        os.rename(scene.root / record.kept.name, scene.root / "f")
    with pytest.raises(NotFound) as caught:
        scene.offset(record)
    assert caught.value.code == "gone"


def test_killed_before_it_took_its_place(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    record = scene.create()
    with monkeypatch.context() as patched:
        patched.setattr(Draft, "commit", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            scene.send(record, b"0123456789")
    scene.next_server()
    assert scene.offset(record) == 10
    assert scene.send(record, b"").record.done is not None
    assert (scene.root / "f").read_bytes() == b"0123456789"


def checksum(data: bytes) -> Checksum:
    return Checksum(hashlib.sha256(), hashlib.sha256(data).digest())


def test_killed_within_a_request_with_a_checksum(scene: Scene) -> None:
    record = scene.create()
    scene.send(record, b"012")
    with ExitStack() as stack:
        opened = stack.enter_context(scene.uploads.open(scene.workspace, record))
        opened.expect(checksum(b"3456"))
        opened.write(b"34")
        assert scene.offset(record) == 3
        (partial,) = scene.root.glob(PARTIAL_PREFIX + "*")
        assert partial.read_bytes() == b"01234"
        later = scene.next_server()
        assert scene.offset(record) == 3
        again = stack.enter_context(later.open(scene.workspace, later.find(record.id, ME)))
        assert again.offset == 3
        assert partial.read_bytes() == b"012"
    assert scene.send(record, b"3456789").record.done is not None


def test_a_full_state_disk(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise LimitReached("full", code="disk-full")

    with monkeypatch.context() as patched:
        patched.setattr(Records, "save", fail)
        with pytest.raises(LimitReached):
            scene.create()
    assert scene.partials() == scene.records() == []
    record = scene.create()
    with monkeypatch.context() as patched:
        patched.setattr(Records, "save", fail)
        # What needs no new record goes on, to its end.
        assert scene.send(record, b"01234").offset == 5
        with scene.uploads.open(scene.workspace, record) as opened, pytest.raises(LimitReached):
            opened.expect(checksum(b"56789"))
        assert scene.send(record, b"56789").record.done is not None
    assert (scene.root / "f").read_bytes() == b"0123456789"
    assert scene.next_server().find(record.id, ME).done is None
    assert scene.offset(record) == 10
    assert scene.uploads.find(record.id, ME).done is not None


def test_a_disk_that_fills_within_a_chunk(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    record = scene.create()
    real, calls = os.write, [3]

    def short(fd: int, data: memoryview) -> int:
        if not calls:
            raise OSError(28, "")
        return real(fd, data[: calls.pop()])

    with scene.uploads.open(scene.workspace, record) as opened:
        with monkeypatch.context() as patched:
            patched.setattr("mhnos_runtime.files.draft.os.write", short)
            with pytest.raises(OSError, match="28"):
                opened.write(b"012345")
        assert opened.offset == 3
    assert scene.offset(record) == 3
    assert scene.send(record, b"3456789").record.done is not None
    assert (scene.root / "f").read_bytes() == b"0123456789"


def test_min_free_is_kept(root: Path, scene: Scene) -> None:
    disk = os.statvfs(root)
    with Workspace(root, min_free=disk.f_bavail * disk.f_frsize + (1 << 40)) as full:
        with pytest.raises(LimitReached) as caught:
            scene.uploads.create(full, Wanted("/f", 1), ME)
        assert caught.value.code == "disk-full"
        record = scene.create()
        with scene.uploads.open(full, record) as opened, pytest.raises(LimitReached):
            opened.write(b"x")
    assert scene.offset(record) == 0


def test_a_condition_that_fails_on_an_empty_file(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise Conflict("raced")

    with monkeypatch.context() as patched:
        patched.setattr(Draft, "commit", fail)
        with pytest.raises(Conflict):
            scene.create(length=0, condition=Condition(absent=True))
    assert scene.partials() == scene.records() == []


def test_it_is_made_durable_now_and_then(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draft, "SYNC_BYTES", 4)
    record, synced = scene.create(), list[int]()
    monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(os.fstat(fd).st_size))
    with scene.uploads.open(scene.workspace, record) as opened:
        for _ in range(4):
            opened.write(b"xy")
        assert synced == [4, 8]
        opened.finish()
    assert synced == [4, 8, 8]


def test_a_done_one_takes_nothing_more(scene: Scene) -> None:
    record = scene.create()
    scene.send(record, b"0123456789")
    with scene.uploads.open(scene.workspace, scene.uploads.find(record.id, ME)) as opened:
        with pytest.raises(InvalidRequest, match="More than"):
            opened.write(b"x")
        opened.expect(checksum(b""))
        opened.set_length(10)
        assert opened.finish().offset == 10


def test_every_error_is_told(scene: Scene) -> None:
    (scene.root / "file").write_bytes(b"")
    for path in ("/file/f", "/", "/../f"):
        with pytest.raises(MhnosError):
            scene.create(path)
    assert scene.records() == []
