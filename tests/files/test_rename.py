"""Renames that overwrite nothing, on file systems that know the kernel's flags and on those that do not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mhnos_runtime.files import rename
from mhnos_runtime.files.rename import exchange, rename_back, rename_free


@pytest.fixture
def fd(root: Path) -> Iterator[int]:
    opened = os.open(root, os.O_PATH)
    yield opened
    os.close(opened)


@pytest.fixture(params=["flags", "no flags", "no call", "no links"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """no flags: as vfat or an old NFS; no call: as an old C library; no links: as vfat."""
    if request.param == "no call":
        monkeypatch.setattr(rename, "_libc", object())
    elif request.param != "flags":
        monkeypatch.setattr(rename, "_NOREPLACE", 1 << 20)
        monkeypatch.setattr(rename, "_EXCHANGE", 1 << 20)
    if request.param == "no links":

        def link(*_: object, **__: object) -> None:
            raise PermissionError(1, "no hard links")

        monkeypatch.setattr(os, "link", link)
    return str(request.param)


MAKE: dict[str, Callable[[Path], object]] = {
    "file": lambda path: path.write_text(path.name),
    "directory": lambda path: (path / "in").mkdir(parents=True),
    "link": lambda path: path.symlink_to("nowhere"),
    "fifo": os.mkfifo,
}


@pytest.mark.parametrize("kind", MAKE)
def test_to_a_free_name(root: Path, fd: int, system: str, kind: str) -> None:
    MAKE[kind](root / "a")
    inode = (root / "a").lstat().st_ino
    rename_free(b"a", b"b", fd, fd)
    assert os.listdir(root) == ["b"]
    assert (root / "b").lstat().st_ino == inode


@pytest.mark.parametrize("there", MAKE)
@pytest.mark.parametrize("kind", MAKE)
def test_what_stands_there_stays(root: Path, fd: int, system: str, kind: str, there: str) -> None:
    MAKE[kind](root / "a")
    MAKE[there](root / "b")
    before = [(root / name).lstat().st_ino for name in "ab"]
    with pytest.raises(FileExistsError):
        rename_free(b"a", b"b", fd, fd)
    assert [(root / name).lstat().st_ino for name in "ab"] == before


def test_a_directory_into_itself_leaves_nothing_behind(root: Path, fd: int, system: str) -> None:
    (root / "a/b").mkdir(parents=True)
    inner = os.open(root / "a/b", os.O_PATH)
    try:
        with pytest.raises(OSError, match="Invalid argument"):
            rename_free(b"a", b"c", fd, inner)
    finally:
        os.close(inner)
    assert sorted(os.listdir(root / "a/b")) == []


def test_what_is_not_there(fd: int, system: str) -> None:
    with pytest.raises(FileNotFoundError):
        rename_free(b"a", b"b", fd, fd)


def test_an_exchange_is_done_or_refused(root: Path, fd: int, system: str) -> None:
    MAKE["file"](root / "a")
    MAKE["directory"](root / "b")
    assert exchange(b"a", b"b", fd, fd) is (system == "flags")
    assert (root / "a").is_dir() is (system == "flags")


def test_an_exchange_needs_both(root: Path, fd: int) -> None:
    MAKE["file"](root / "a")
    with pytest.raises(FileNotFoundError):
        exchange(b"a", b"b", fd, fd)


def test_back_to_a_place_that_is_taken_by_now(root: Path, fd: int) -> None:
    long = "n" * 255
    for number in range(4):
        (root / "x").write_text(str(number))
        rename_back(b"x", long.encode(), fd, fd)
    contents = {path.name: path.read_text() for path in root.iterdir()}
    assert contents[long] == "0"
    assert contents[long[:200] + ".restored"] == "1"
    assert sorted(contents.values()) == ["0", "1", "2", "3"]
