"""A server that is killed leaves nothing, and the next one removes nothing that is somebody else's."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mhnos_runtime.files import draft as drafting
from mhnos_runtime.files import tree
from mhnos_runtime.files.archives.unpack import Unpack
from mhnos_runtime.files.archives.untar import Untar
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.draft import Condition, Draft
from mhnos_runtime.files.partials import PLACE_BYTES, Partials
from mhnos_runtime.files.paths import PARTIAL_PREFIX
from mhnos_runtime.files.rename import exchange
from mhnos_runtime.files.trash import Trash
from tests.files.archives.packing import END, member
from tests.files.driving import drive
from tests.files.killed import die, killed_at, partials, start

MINE = f"{PARTIAL_PREFIX}mine"
#: More than one of the jobs comes to.
MOMENTS = 200


@pytest.fixture
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state") / "partials"


@pytest.fixture
def scene(root: Path, outside: Path) -> Path:
    """Something to copy, a look-alike of a user, and a link that leads out."""
    (root / "t/d").mkdir(parents=True)
    (root / "t/d/file").write_text("content")
    (root / "t/link").symlink_to("d/file")
    (root / "deep/er").mkdir(parents=True)
    (root / MINE).mkdir()
    (root / MINE / "kept").write_text("mine")
    (root / "deep/er" / MINE).symlink_to(outside)
    return root


def whole(root: Path) -> list[str]:
    return [path for path in partials(root) if MINE not in path]


def server(root: Path, notes: Path) -> Workspace:
    return Workspace(root, 0, Partials(notes))


def copying(root: Path, notes: Path) -> None:
    with server(root, notes) as workspace:
        drive(tree.copy(workspace, Trash(notes.parent / "trash", 0), "/t", "/deep/er/copy"))


def unpacking(root: Path, notes: Path) -> None:
    files = b"".join(member(f"{name}/f{name}", b"x" * 100) for name in ("a", "a/b", "c"))
    hard = member("a/hard", kind=b"1", linkname="c/fc")
    with server(root, notes) as workspace, Unpack(workspace, "/deep/er/out") as unpack:
        for _ in unpack.take(Untar().feed(files + hard + END)):
            pass


def writing(root: Path, notes: Path, condition: Condition) -> None:
    with server(root, notes) as workspace:
        draft = Draft(workspace, "/deep/er/f", condition)
        draft.write(b"new")
        draft.commit()


@pytest.mark.parametrize("job", [copying, unpacking])
def test_killed_at_any_moment_nothing_is_left_after_a_start(
    scene: Path, notes: Path, job: Callable[[Path, Path], None]
) -> None:
    seen = 0
    for moment in range(MOMENTS):
        was_killed = killed_at(moment, lambda: job(scene, notes))
        seen += bool(whole(scene))
        assert start(scene, notes) == []
        assert whole(scene) == []
        assert list(notes.glob("*")) == []
        if not was_killed:
            break
    assert not was_killed
    assert seen > 1
    assert (scene / MINE / "kept").read_text() == "mine"
    assert (scene / "deep/er" / MINE).is_symlink()


@pytest.mark.parametrize("unnamed", [True, False])
@pytest.mark.parametrize("old", [True, False])
def test_so_it_is_with_a_draft(
    scene: Path, notes: Path, unnamed: bool, old: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a file system that has no files without a name."""
    if not unnamed:
        monkeypatch.setattr(drafting, "create_unnamed", _refuse)
    target, seen = scene / "deep/er/f", 0
    for moment in range(MOMENTS):
        target.unlink(missing_ok=True)
        if old:
            target.write_text("old")
        was_killed = killed_at(moment, lambda: writing(scene, notes, Condition(absent=not old)))
        seen += bool(whole(scene))
        start(scene, notes)
        assert whole(scene) == []
        assert not target.exists() or target.read_text() in ("old", "new")
        if not was_killed:
            break
    assert not was_killed
    assert seen or (unnamed and not old)


@pytest.mark.parametrize("keeps", [True, False])
def test_what_was_being_replaced_is_not_hidden_for_ever(
    scene: Path, notes: Path, keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed directly after the exchange: where there is a trash, nobody meant to lose it."""
    (scene / "deep/er/copy").mkdir()
    (scene / "deep/er/copy/old").write_text("old")

    def last(*names: object) -> bool:
        exchange(*names)  # type: ignore[arg-type]
        die()
        return True

    monkeypatch.setattr(tree, "exchange", last)

    def act() -> None:
        with server(scene, notes) as workspace:
            trash = Trash(notes.parent / "trash", 3600.0 if keeps else 0)
            drive(tree.copy(workspace, trash, "/t", "/deep/er/copy", replace=True))

    assert killed_at(MOMENTS, act)
    start(scene, notes)
    assert whole(scene) == []
    assert (scene / "deep/er/copy/d/file").read_text() == "content"
    assert (scene / "deep/er/copy.restored/old").exists() == keeps


def test_so_it_is_with_what_comes_back_from_another_disk(
    scene: Path, notes: Path, trash_folder: Path
) -> None:
    if os.stat(trash_folder.parent).st_dev == os.stat(scene).st_dev:
        pytest.skip("there it is renamed")
    trash, seen = Trash(trash_folder, 3600.0), 0
    with server(scene, notes) as workspace:
        item = drive(tree.remove(workspace, trash, "/t", recursive=True, condition=Condition()))
        assert item
        for moment in range(MOMENTS):
            was_killed = killed_at(moment, lambda: drive(trash.restore(workspace, item, "/back")))
            seen += bool(whole(scene))
            start(scene, notes)
            assert whole(scene) == []
            if not was_killed or (scene / "back").exists():
                break
    workspace.partials.close()
    assert seen > 1
    assert (scene / "back/d/file").read_text() == "content"


@pytest.fixture
def cut_off(scene: Path, notes: Path) -> Iterator[Path]:
    """What a copy has left, with something in it."""
    for moment in range(MOMENTS):
        assert killed_at(moment, lambda: copying(scene, notes))
        left = [scene / path for path in whole(scene)]
        if left and any(left[0].iterdir()):
            yield left[0]
            return
        start(scene, notes)


def test_a_link_in_its_place_stays_and_is_not_followed(
    scene: Path, notes: Path, cut_off: Path, outside: Path
) -> None:
    cut_off.rename(scene / "moved")
    cut_off.symlink_to(outside)
    assert start(scene, notes) == []
    assert cut_off.is_symlink()
    assert os.listdir(notes) == []


def test_something_else_in_its_place_stays(scene: Path, notes: Path, cut_off: Path) -> None:
    cut_off.rename(scene / "moved")
    cut_off.mkdir()
    (cut_off / "theirs").touch()
    assert start(scene, notes) == []
    assert (cut_off / "theirs").exists()


def test_a_folder_that_is_a_link_by_now_is_not_entered(
    scene: Path, notes: Path, cut_off: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    moved = tmp_path_factory.mktemp("elsewhere") / "er"
    cut_off.parent.rename(moved)
    (scene / "deep/er").symlink_to(moved)
    assert start(scene, notes) == []
    assert (moved / cut_off.name).is_dir()


def test_a_folder_that_is_gone_is_nothing_to_tell(scene: Path, notes: Path, cut_off: Path) -> None:
    cut_off.parent.rename(scene / "moved")
    assert start(scene, notes) == []
    assert os.listdir(notes) == []


@pytest.mark.parametrize("at", [0, 8, 16, 20, 24, 30])
def test_by_a_damaged_note_nothing_is_removed(scene: Path, notes: Path, cut_off: Path, at: int) -> None:
    [note] = notes.iterdir()
    data = bytearray(note.read_bytes())
    data[at] ^= 0x55
    note.write_bytes(data)
    assert start(scene, notes) == []
    assert cut_off.is_dir()
    assert os.listdir(notes) == []


def test_beside_a_damaged_note_the_others_count(scene: Path, notes: Path, cut_off: Path) -> None:
    [note] = notes.iterdir()
    note.write_bytes(os.urandom(PLACE_BYTES) + note.read_bytes())
    assert start(scene, notes) == []
    assert not cut_off.exists()


def test_what_a_living_server_writes_is_left_alone(scene: Path, notes: Path) -> None:
    """Two servers of one runtime overlap for a moment when one takes over."""
    living = Partials(notes)
    with Workspace(scene, 0, living) as workspace:
        steps = tree.copy(workspace, Trash(notes.parent / "trash", 0), "/t", "/deep/er/copy")
        next(steps)
        [left] = whole(scene)
        assert start(scene, notes) == []
        assert whole(scene) == [left]
        drive(steps)
    assert (scene / "deep/er/copy/d/file").read_text() == "content"
    living.close()


def test_it_waits_for_a_workspace_that_is_not_there(scene: Path, notes: Path, cut_off: Path) -> None:
    scene.rename(scene.parent / "ws-later")
    told = start(scene, notes)
    assert len(told) == 1
    assert "cannot be opened" in told[0]
    (scene.parent / "ws-later").rename(scene)
    assert start(scene, notes) == []
    assert not cut_off.exists()


def _refuse(*_: object) -> int:
    raise OSError(errno.EOPNOTSUPP, "")
