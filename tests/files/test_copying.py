"""Copies of files and trees: what is kept, what is left out, and how much of the disk they take."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.errors import LimitReached, MhnosError
from mhnos_runtime.files import copying
from mhnos_runtime.files.copying import Copied, Copy
from tests.files.driving import drive, paths
from tests.files.test_descent import deep


@pytest.fixture
def top(root: Path) -> Iterator[int]:
    opened = os.open(root, os.O_RDONLY)
    yield opened
    os.close(opened)


def copy(top: int, name: str = "t", *, whole: bool = False, min_free: int = 0) -> Copied:
    made = Copy(min_free, (os.geteuid(), os.getegid()), whole=whole)
    drive(made.steps(top, name.encode(), f"/{name}", top, b"copy"))
    return made.done


def test_modes_times_links_and_holes(root: Path, top: int) -> None:
    (root / "t/d").mkdir(parents=True)
    (root / "t/d/file").write_bytes(b"x" * 10_000)
    (root / "t/d/file").chmod(0o4640)
    (root / "t/link").symlink_to("../nowhere")
    with open(root / "t/sparse", "wb") as file:
        file.seek(64 << 20)
        file.write(b"end")
        file.truncate(128 << 20)
    (root / "t/d").chmod(0o500)
    for path in ("t/d/file", "t/link", "t/d", "t"):
        os.utime(root / path, ns=(1, 1_234_567_890), follow_symlinks=False)
    done = copy(top)
    assert (done.copied, done.skipped) == (5, [])
    assert paths(root / "copy") == paths(root / "t")
    assert (root / "copy/d/file").read_bytes() == b"x" * 10_000
    assert os.readlink(root / "copy/link") == "../nowhere"
    # Bits that give rights are not handed on.
    assert (root / "copy/d/file").stat().st_mode & 0o7777 == 0o640
    assert (root / "copy/d").stat().st_mode & 0o7777 == 0o500
    for path in ("d/file", "link", "d", ""):
        assert (root / "copy" / path).lstat().st_mtime_ns == 1_234_567_890
    sparse = (root / "copy/sparse").stat()
    assert sparse.st_size == 128 << 20
    assert sparse.st_blocks * 512 < 1 << 20
    assert (root / "copy/sparse").read_bytes()[64 << 20 :].rstrip(b"\0") == b"end"


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_where_the_kernel_does_not_copy(
    root: Path, top: int, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, "")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    content = os.urandom(9_000_001)
    (root / "t").write_bytes(content)
    assert copy(top).bytes == len(content)
    assert (root / "copy").read_bytes() == content


def test_what_cannot_be_copied_is_left_out_and_told(root: Path, top: int) -> None:
    (root / "t").mkdir()
    for number in range(150):
        os.mkfifo(root / f"t/{number:03}")
    (root / "t/file").touch()
    (root / "t/.mhnos-push-0").touch()
    done = copy(top)
    assert (done.copied, done.skipped_count, len(done.skipped)) == (2, 150, 100)
    assert os.listdir(root / "copy") == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
@pytest.mark.parametrize("whole", [False, True])
def test_what_cannot_be_read(root: Path, top: int, whole: bool) -> None:
    (root / "t/closed").mkdir(parents=True)
    (root / "t/file").touch()
    (root / "t/file").chmod(0)
    (root / "t/closed").chmod(0)
    try:
        if whole:
            with pytest.raises(MhnosError):
                copy(top, whole=True)
        else:
            assert sorted(path for path, _ in copy(top).skipped) == ["/t/closed", "/t/file"]
    finally:
        (root / "t/closed").chmod(0o700)


def test_a_deep_tree(root: Path, top: int) -> None:
    deep(root, 3000)
    assert copy(top, "a").copied == 3001


def test_the_disk_keeps_its_room(root: Path, top: int) -> None:
    (root / "t").write_bytes(b"x")
    with pytest.raises(LimitReached) as caught:
        copy(top, min_free=1 << 60)
    assert caught.value.code == "disk-full"


def test_a_file_that_becomes_shorter_meanwhile(root: Path, top: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "CHUNK_BYTES", 1000)
    (root / "t").write_bytes(b"x" * 10_000)
    for number, _ in enumerate(
        Copy(0, (0, 0) if os.geteuid() == 0 else None).steps(top, b"t", "/t", top, b"copy")
    ):
        if number == 3:
            os.truncate(root / "t", 500)
    assert (root / "copy").stat().st_size in (4000, 5000)


def test_a_fifo_in_the_place_of_a_file_is_not_waited_for(
    root: Path, top: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "t").mkdir()
    (root / "t/file").touch()
    plain = os.open

    def swapped(path: Any, flags: int, *args: Any, **more: Any) -> int:
        if path == b"file" and not flags & os.O_CREAT:
            os.unlink(root / "t/file")
            os.mkfifo(root / "t/file")
        return plain(path, flags, *args, **more)

    monkeypatch.setattr(os, "open", swapped)
    assert copy(top).skipped_count == 1


def test_a_link_in_the_place_of_a_file_is_not_followed(
    root: Path, top: int, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "t").mkdir()
    (root / "t/file").touch()
    plain = os.open

    def swapped(path: Any, flags: int, *args: Any, **more: Any) -> int:
        if path == b"file" and not flags & os.O_CREAT:
            os.unlink(root / "t/file")
            os.symlink("../../ws-secret/canary", root / "t/file")
        return plain(path, flags, *args, **more)

    monkeypatch.setattr(os, "open", swapped)
    assert copy(top).skipped_count == 1
    assert os.listdir(root / "copy") == []
