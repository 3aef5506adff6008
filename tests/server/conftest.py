"""A real server for each module, clients for each test. Knows how a server starts, not what it answers."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from mhnos_runtime.testing import TestServer
from tests.server.client import Client, connect

_numbers = itertools.count(1)

#: The Python of the tests is the one that processes find: a version manager's shim takes 100 ms to start one.
ENVIRONMENT = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def server_in(directory: Path, *flags: str) -> TestServer:
    """A server that is not yet started, with short times for what is long in use."""
    return TestServer(directory, *flags, environment=ENVIRONMENT)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TestServer]:
    """Shared by the tests of a module, which therefore name only their own pids."""
    flags = ("--kill-grace-seconds", "1", "--max-processes", "200")
    async with server_in(tmp_path_factory.mktemp("server"), *flags) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def client(server: TestServer) -> AsyncIterator[Client]:
    """A client of 1.0."""
    async with connect(server) as connected:
        yield connected


@pytest_asyncio.fixture(loop_scope="module")
async def other(server: TestServer) -> AsyncIterator[Client]:
    """Another client of 1.0."""
    async with connect(server) as connected:
        yield connected


@pytest_asyncio.fixture(loop_scope="module")
async def newer(server: TestServer) -> AsyncIterator[Client]:
    """A client that negotiated binary frames."""
    async with connect(server, newer=True) as connected:
        yield connected


@pytest.fixture
def script(server: TestServer) -> Callable[[str], str]:
    """Writes a Python program into the workspace; gives its path there."""

    def write(source: str) -> str:
        name = f"script{next(_numbers)}.py"
        (server.workspace / name).write_text(source)
        return f"/{name}"

    return write
