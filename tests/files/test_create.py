"""New files and directories: never through a link, and with the owner that processes need."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mhnos_runtime.files.create import create_exclusive, create_unnamed, make_new_dir

OWNER = 60_000


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    """As root it is somebody else's."""
    if os.geteuid() == 0:
        os.chown(tmp_path, OWNER, OWNER)
    fd = os.open(tmp_path, os.O_PATH)
    yield fd
    os.close(fd)


def owner_of(path: Path) -> int:
    return path.lstat().st_uid


def test_what_is_made_is_its_folders_owners(tmp_path: Path, folder: int) -> None:
    os.close(create_exclusive(b"file", os.O_WRONLY, 0o640, folder))
    make_new_dir(b"directory", folder)
    fd = create_unnamed(os.O_RDWR, 0o600, folder)
    assert {owner_of(tmp_path / "file"), owner_of(tmp_path / "directory"), os.fstat(fd).st_uid} == {
        owner_of(tmp_path)
    }
    os.close(fd)
    assert sorted(os.listdir(tmp_path)) == ["directory", "file"]


def test_what_stands_there_stays(tmp_path: Path, folder: int) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    for name in (b"link", b"file"):
        (tmp_path / "file").write_bytes(b"old")
        with pytest.raises(FileExistsError):
            create_exclusive(name, os.O_WRONLY, 0o600, folder)
        with pytest.raises(FileExistsError):
            make_new_dir(name, folder)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert not (tmp_path / "nowhere").exists()


def test_its_descriptor_is_for_no_child(folder: int) -> None:
    fd = create_exclusive(b"file", os.O_WRONLY, 0o600, folder)
    assert not os.get_inheritable(fd)
    os.close(fd)
