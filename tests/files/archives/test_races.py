"""A process that swaps a folder and a link while archives are packed and unpacked: it may spoil an entry, and
never leads one outside. `--fuzz-seconds 60` is the figure that has
to hold."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mhnos_runtime.errors import MhnosError
from mhnos_runtime.files.archives import unpack as unpacking
from mhnos_runtime.files.archives.walk import Skipped, members
from mhnos_runtime.files.confine import Workspace
from tests.files.archives.packing import archive, member, unpack
from tests.files.conftest import CANARY
from tests.project.checkout import ROOT

LEAST = 20
"""Archives, however busy the machine is."""


@contextlib.contextmanager
def swapping(folder: Path) -> Iterator[None]:
    """`swap` in the folder is in turn what `swap` and what `other` was, in a process of its own."""
    command = [sys.executable, "-m", "tests.files.swapper", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            yield
            told, _ = process.communicate()
            assert int(told) > LEAST
        finally:
            process.kill()


@pytest.fixture
def passes(request: pytest.FixtureRequest) -> Iterator[int]:
    """Counts up to LEAST, and on until --fuzz-seconds are over."""

    def count() -> Iterator[int]:
        until, number = time.monotonic() + float(request.config.getoption("--fuzz-seconds")), 0
        while number < LEAST or time.monotonic() < until:
            yield number
            number += 1

    return count()


@pytest.fixture
def into(root: Path, outside: Path) -> Path:
    folder = root / "into"
    (folder / "swap").mkdir(parents=True)
    return folder


@pytest.mark.timeout(0)
@pytest.mark.parametrize("target", ["../../ws-secret", "{outside}", "../beside"])
def test_unpacking_through_a_link_that_comes_and_goes(
    workspace: Workspace,
    root: Path,
    into: Path,
    outside: Path,
    target: str,
    passes: Iterator[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where the folder is resolved anew for each entry, which gives the swaps the most chances."""
    (root / "beside").mkdir()
    (into / "other").symlink_to(target.format(outside=outside))
    data = archive(
        *(member(f"swap/{number}", b"x") for number in range(20)),
        member("swap/canary", b"x"),
        member("swap/d/", kind=tarfile.DIRTYPE, mode=0o700, mtime=5),
        member("swap/d/new", b"x"),
        member("swap/link", kind=tarfile.SYMTYPE, linkname="d"),
        member("swap/hard", kind=tarfile.LNKTYPE, linkname="swap/canary"),
    )
    written = 0
    with swapping(into):
        for number in passes:
            monkeypatch.setattr(unpacking, "_FOLDER_USES", (1, 1000)[number % 2])
            with contextlib.suppress(MhnosError):
                written += unpack(workspace, data).written
    assert written
    assert os.listdir(root / "beside") == []
    if (stolen := into / "swap/hard").exists():
        assert stolen.read_bytes() == b"x"


@pytest.mark.timeout(0)
def test_unpacking_into_a_target_that_comes_and_goes(
    workspace: Workspace, root: Path, into: Path, outside: Path, passes: Iterator[int]
) -> None:
    (into / "other").symlink_to("../../ws-secret")
    data = archive(*(member(name, b"x") for name in ("canary", "new", "d/new")))
    written = 0
    with swapping(into):
        for _ in passes:
            with contextlib.suppress(MhnosError):
                written += unpack(workspace, data, "/into/swap").written
    assert written


@pytest.mark.timeout(0)
def test_packing_while_folders_turn_into_links(
    workspace: Workspace, root: Path, into: Path, outside: Path, passes: Iterator[int]
) -> None:
    (into / "swap/d").mkdir()
    (into / "swap/d/canary").write_bytes(b"inside")
    (into / "swap/canary").write_bytes(b"inside")
    (into / "other").symlink_to("../../ws-secret")
    read = 0
    with swapping(into):
        for _ in passes:
            top = workspace.open_dir("/", listing=True)
            for each in members(top, Skipped()):
                if each is not None and each.kind == "file":
                    assert each.data == b"inside" != CANARY
                    read += 1
            os.close(top)
    assert read


@pytest.mark.timeout(0)
def test_files_that_turn_into_links_and_fifos(
    workspace: Workspace, root: Path, into: Path, outside: Path, passes: Iterator[int]
) -> None:
    (into / "swap").rmdir()
    (into / "swap").write_bytes(b"x")
    os.mkfifo(into / "other")
    with swapping(into):
        for number in passes:
            # An archive puts a file in the place of a link, too.
            if number % 2:
                os.mkfifo(into / "planted")
            else:
                (into / "planted").symlink_to("../../ws-secret/canary")
            os.rename(into / "planted", into / "other")
            unpack(workspace, archive(member("swap", b"x")))
            top = workspace.open_dir("/into", listing=True)
            for each in members(top, Skipped()):
                assert each is None or each.kind != "file" or each.data in (b"", b"x")
            os.close(top)
