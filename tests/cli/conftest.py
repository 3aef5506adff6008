"""A real server that the tests of a module share; each names its own processes."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from mhnos_runtime.testing import TestServer
from tests.cli.desk import Desk


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TestServer]:
    # The Python of the tests is the one that processes find: a version manager's shim is slow to start.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    folder = tmp_path_factory.mktemp("cli")
    async with TestServer(folder, environment={"PATH": path}) as running:
        yield running


@pytest.fixture
def env(shared: TestServer) -> dict[str, str]:
    """What a command finds the shared server by."""
    return {"MHNOS_STATE_DIR": str(shared.state_dir), "MHNOS_URL": shared.url, "NO_COLOR": "1"}


@pytest.fixture
def bench(shared: TestServer, tmp_path: Path) -> Iterator[Desk]:
    """A shell in an empty folder of its own, beside the shared server, whose workspace is empty."""
    here = tmp_path / "here"
    here.mkdir()
    yield Desk(shared.state_dir, shared.workspace, "none", here)
    for path in shared.workspace.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
