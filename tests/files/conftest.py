"""A workspace with hostile neighbours. Every test here also fails when it leaves a descriptor open."""

from __future__ import annotations

import errno
import gc
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.inotify import Inotify
from mhnos_runtime.files.trash import Trash
from tests.files.binned import Bin
from tests.files.filing import Files
from tests.files.watched import Watched, failing

CANARY = b"outside: nobody may read, change or join me"


def open_descriptors() -> dict[str, str]:
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            pass  # The listing's own.
    return found


@pytest.fixture(autouse=True)
def no_descriptor_leaks() -> Iterator[None]:
    before = open_descriptors()
    yield
    if open_descriptors().keys() - before.keys():
        gc.collect()  # A test's own objects may only be waiting for it; that costs too much for every test.
    assert {fd: path for fd, path in open_descriptors().items() if fd not in before} == {}


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A sibling whose name starts with the workspace's; checked to be untouched at the end."""
    folder = tmp_path / "ws-secret"
    folder.mkdir()
    (folder / "canary").write_bytes(CANARY)
    yield folder
    assert sorted(os.listdir(folder)) == ["canary"]
    assert (folder / "canary").read_bytes() == CANARY
    assert set(os.listdir(tmp_path)) <= {"ws", "ws-secret"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "ws"
    folder.mkdir()
    return folder


@pytest.fixture
def workspace(root: Path, outside: Path) -> Iterator[Workspace]:
    with Workspace(root) as opened:
        yield opened


@pytest.fixture
def trash(tmp_path_factory: pytest.TempPathFactory) -> Trash:
    return Trash(tmp_path_factory.mktemp("state") / "trash", 3600.0)


@pytest.fixture
def files(workspace: Workspace, trash: Trash) -> Files:
    return Files(workspace, trash)


# Watches


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "top").mkdir()
    return tmp_path / "top"


@pytest.fixture
def space(top: Path) -> Iterator[Workspace]:
    with Workspace(top) as workspace:
        yield workspace


@pytest.fixture
def watched(space: Workspace) -> Iterator[Watched]:
    with Watched(space) as watched:
        yield watched


@pytest.fixture(params=["inotify", "polling"])
def either(
    space: Workspace, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Watched]:
    """By the kernel's news, and without them."""
    if request.param == "polling":
        monkeypatch.setattr(Inotify, "__init__", failing(errno.EMFILE))
    with Watched(space) as watched:
        assert watched.watch.by == request.param
        yield watched


@pytest.fixture(params=["same disk", "another disk"])
def trash_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if request.param == "same disk":
        yield tmp_path_factory.mktemp("state") / "trash"
        return
    if not os.path.isdir("/dev/shm") or os.stat("/dev/shm").st_dev == os.stat(tempfile.gettempdir()).st_dev:
        pytest.skip("needs another file system")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as made:
        yield Path(made) / "trash"


@pytest.fixture
def store(workspace: Workspace, root: Path, trash_folder: Path) -> Bin:
    return Bin(workspace, trash_folder, root)
