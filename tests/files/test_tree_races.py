"""A process that swaps directories and links under every step: it may spoil a request, never lead it outside
or make it remove what nobody named. `--fuzz-seconds 60` for long."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.errors import MhnosError
from mhnos_runtime.files import tree
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.draft import ANYTHING
from mhnos_runtime.files.rename import exchange
from mhnos_runtime.files.steps import Steps
from mhnos_runtime.files.trash import Trash
from tests.files.conftest import CANARY
from tests.files.driving import drive
from tests.files.test_confine_races import hammering

INSIDE = b"inside"
# As long as --fuzz-seconds says.
pytestmark = pytest.mark.timeout(0)


@pytest.fixture
def seconds(request: pytest.FixtureRequest) -> float:
    return float(request.config.getoption("--fuzz-seconds"))


@pytest.fixture
def swapping(root: Path, outside: Path) -> Iterator[Callable[[], int]]:
    """`/swap` is a folder with files, and in the next moment a link to the folder outside; so is what is in
    `/deep/1/2`, which is moved out of its place as well."""
    fd = os.open(root, os.O_RDONLY)

    def fresh(name: str) -> None:
        """By names at the top, which only this process makes: it must not follow its own links."""
        old = root / "old"
        with contextlib.suppress(OSError):
            os.rename(root / name, old)
        if old.is_symlink():
            old.unlink()
        else:
            shutil.rmtree(old, ignore_errors=True)
        (root / "new/1/2/3").mkdir(parents=True)
        (root / "new/sub").mkdir()
        for path in ("canary", "sub/canary", "1/2/3/canary", "1/2/canary"):
            (root / "new" / path).write_bytes(INSIDE)
        os.rename(root / "new", root / name)

    turns = itertools.count()

    def change() -> None:
        exchange(b"swap", b"link", fd, fd)
        with contextlib.suppress(OSError):
            os.rename(root / "deep/1/2", root / "elsewhere/2")
        with contextlib.suppress(OSError):
            os.rename(root / "elsewhere/2", root / "deep/1/2")
        turn = next(turns) % 40
        if turn < 3:
            fresh(("swap", "deep", "elsewhere")[turn])
        if turn == 3:
            (root / "link").unlink() if (root / "link").is_symlink() else shutil.rmtree(root / "link")
        if turn == 4:
            (root / "link").symlink_to("../ws-secret")

    for name in ("swap", "deep", "elsewhere"):
        fresh(name)
    (root / "link").symlink_to("../ws-secret")
    with hammering(change) as swaps:
        yield swaps
    os.close(fd)


def tried(steps: Steps[Any]) -> Any:
    try:
        return drive(steps)
    except MhnosError:
        return None


def test_lists_and_looks(workspace: Workspace, swapping: Callable[[], int], seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until or swapping() < 200:
        for path in ("/swap", "/deep/1/2", "/link", "/swap/sub"):
            page = tried(tree.list_page(workspace, path, None, 100))
            for entry in page.entries if page else ():
                assert entry.kind != "file" or entry.size != len(CANARY)
            found = tried(tree.look(workspace, path + "/canary", sha256=True))
            assert found is None or found[0].size != len(CANARY)


def test_copies(
    workspace: Workspace, trash: Trash, root: Path, swapping: Callable[[], int], seconds: float
) -> None:
    until, count = time.monotonic() + seconds, 0
    while time.monotonic() < until or swapping() < 200:
        for path in ("/swap", "/deep", "/link"):
            tried(tree.copy(workspace, trash, path, "/copied", replace=False))
            copied = root / "copied"
            if copied.is_symlink():
                copied.unlink()
            elif copied.exists():
                count += 1
                for folder, _, files in os.walk(copied):
                    for name in files:
                        assert (Path(folder) / name).read_bytes() in (b"", INSIDE)
                shutil.rmtree(copied)
    assert count


@pytest.mark.parametrize("outright", [True, False])
def test_removes(
    workspace: Workspace,
    trash: Trash,
    root: Path,
    swapping: Callable[[], int],
    seconds: float,
    outright: bool,
) -> None:
    """The fixture checks that what is outside is whole; here also what nobody named."""
    (root / "kept").mkdir()
    (root / "kept/file").touch()
    until = time.monotonic() + seconds
    while time.monotonic() < until or swapping() < 200:
        for path in ("/swap/sub", "/swap", "/deep/1", "/link/canary", "/swap/canary"):
            tried(tree.remove(workspace, trash, path, recursive=True, outright=outright, condition=ANYTHING))
    assert os.listdir(root / "kept") == ["file"]
    if not outright:
        drive(trash.empty(None, workspace.covers))


def test_moves_and_restores(
    workspace: Workspace, trash: Trash, root: Path, swapping: Callable[[], int], seconds: float
) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until or swapping() < 200:
        for source, target in (("/swap/canary", "/got"), ("/deep/1/2", "/swap/2"), ("/got", "/link/new")):
            tried(tree.move(workspace, trash, source, target, replace=True, condition=ANYTHING))
        item = tried(tree.remove(workspace, trash, "/swap/canary", condition=ANYTHING))
        if item:
            tried(trash.restore(workspace, item, None))
        got = root / "got"
        if got.is_file() and not got.is_symlink():
            assert got.read_bytes() in (b"", INSIDE)
    drive(trash.empty(None, workspace.covers))
