"""A file that is read: as it was when it was opened, or told that it is not that any more."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mhnos_runtime.errors import Conflict, InvalidRequest, MhnosError, NotFound, Unavailable
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.content import WHOLE_BYTES, Content

LARGE = WHOLE_BYTES + 10


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def workspace(folder: Path) -> Iterator[Workspace]:
    with Workspace(folder) as opened:
        yield opened


def put(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    # Of a moment ago, so that what comes after it bears another time.
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("size", [0, 1, WHOLE_BYTES, LARGE])
def test_what_is_read_is_what_is_there(workspace: Workspace, folder: Path, size: int) -> None:
    data = os.urandom(size)
    put(folder / "a", data)
    with closing(Content(workspace, "/a")) as content:
        assert (content.entry.path, content.entry.kind, content.entry.size) == ("/a", "file", size)
        assert content.read(0, size) == data
        assert content.read(size // 2, size - size // 2) == data[size // 2 :]


def test_a_small_file_stays_as_it_was(workspace: Workspace, folder: Path) -> None:
    put(folder / "a", b"before")
    with closing(Content(workspace, "/a")) as content:
        put(folder / "a", b"after!")
        assert content.read(0, 6) == b"before"


def test_a_large_file_that_grows_has_what_it_had(workspace: Workspace, folder: Path) -> None:
    put(folder / "a", bytes(LARGE))
    with closing(Content(workspace, "/a")) as content:
        with (folder / "a").open("ab") as grown:
            grown.write(b"more")
        assert content.read(WHOLE_BYTES, 10) == bytes(10)
        assert content.entry.size == LARGE


@pytest.mark.parametrize("size", [0, WHOLE_BYTES, LARGE - 1])
def test_a_large_file_that_shrinks_is_told(workspace: Workspace, folder: Path, size: int) -> None:
    put(folder / "a", bytes(LARGE))
    with closing(Content(workspace, "/a")) as content:
        os.truncate(folder / "a", size)
        with pytest.raises(Conflict) as error:
            content.read(0, 10)
        assert error.value.code == "changed"


def test_a_large_file_that_is_rewritten_is_told(workspace: Workspace, folder: Path) -> None:
    put(folder / "a", bytes(LARGE))
    with closing(Content(workspace, "/a")) as content:
        assert content.read(0, 10) == bytes(10)
        with (folder / "a").open("r+b") as file:
            file.write(b"x")
        with pytest.raises(Conflict):
            content.read(10, 10)


def test_another_file_under_its_name_changes_nothing(workspace: Workspace, folder: Path) -> None:
    """An atomic replacement, or a removal, leaves who reads with what he had."""
    put(folder / "a", bytes(LARGE))
    with closing(Content(workspace, "/a")) as content:
        (folder / "b").write_bytes(b"another")
        (folder / "b").replace(folder / "a")
        assert content.read(0, LARGE) == bytes(LARGE)
        (folder / "a").unlink()
        assert content.read(0, LARGE) == bytes(LARGE)


class Restless(Content):
    """A file that somebody changes each time between reading and looking."""

    def __init__(self, workspace: Workspace, path: str, *changes: bytes) -> None:
        self._changes = list(changes)
        self._root = Path(workspace.root)
        super().__init__(workspace, path)

    def _read(self, start: int, size: int) -> bytes:
        data = super()._read(start, size)
        if self._changes:
            put(self._root / self._path[1:], self._changes.pop(0))
        return data


def test_a_small_file_is_read_again_until_it_holds_still(workspace: Workspace, folder: Path) -> None:
    put(folder / "a", b"one")
    with closing(Restless(workspace, "/a", b"two", b"three")) as content:
        assert content.read(0, content.entry.size) == b"three"
    put(folder / "a", b"one")
    with pytest.raises(Unavailable) as error:
        Restless(workspace, "/a", *(b"x" * size for size in range(20, 0, -1)))
    assert error.value.retry


def test_a_small_file_that_grows_all_the_time_has_what_it_had(workspace: Workspace, folder: Path) -> None:
    put(folder / "a", b"x")
    with closing(Restless(workspace, "/a", *(b"x" * size for size in range(2, 30)))) as content:
        assert content.read(0, content.entry.size) == b"x" * content.entry.size


def test_a_small_file_that_becomes_large_is_read_in_pieces(workspace: Workspace, folder: Path) -> None:
    put(folder / "a", b"x")
    with closing(Restless(workspace, "/a", bytes(LARGE))) as content:
        assert content.entry.size == LARGE
        assert content.read(0, LARGE) == bytes(LARGE)


def test_what_is_no_file_is_not_opened(workspace: Workspace, folder: Path) -> None:
    """A FIFO would wait for a writer."""
    os.mkfifo(folder / "fifo")
    (folder / "dir").mkdir()
    (folder / "out").symlink_to("/etc/hostname")
    for path, kind, code in (
        ("/fifo", InvalidRequest, "invalid-argument"),
        ("/dir", InvalidRequest, "is-a-directory"),
        ("/out", MhnosError, "outside-workspace"),
        ("/none", NotFound, "not-found"),
    ):
        with pytest.raises(kind) as error:
            Content(workspace, path)
        assert error.value.code == code


def test_nothing_is_left_open(workspace: Workspace, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder / "a", b"x")
    before = len(os.listdir("/proc/self/fd"))
    Content(workspace, "/a").close()

    def fail(_fd: int) -> os.stat_result:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Content, "_read", lambda *_: fail(0))
    with pytest.raises(OSError, match="error"):
        Content(workspace, "/a")
    monkeypatch.undo()
    monkeypatch.setattr(os, "pread", lambda *_: fail(0))
    with pytest.raises(Unavailable):
        Content(workspace, "/a")
    assert len(os.listdir("/proc/self/fd")) == before
