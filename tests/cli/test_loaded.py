"""What a verb loads, against a real server: most of a short command's time goes into imports."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mhnos_runtime.client import connect
from mhnos_runtime.testing import TestServer

LOADED = """
import sys
from mhnos_runtime.cli.main import run
code = run(sys.argv[1:])
print(*sys.modules, file=sys.stderr)
sys.exit(code)
"""
#: Also: what only some other way of asking needs.
LOOP = {"rich", "asyncio", "aiohttp", "uvloop", "ssl", "http.client", "mhnos_runtime.client.runtime"}
SERVERS = {"aiohttp", "uvloop", "mhnos_runtime.server", "mhnos_runtime.config.table"}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[TestServer]:
    async with TestServer(tmp_path) as running:
        yield running


async def loaded(server: TestServer, *args: str, **env: str) -> set[str]:
    """The modules at the end of a command that went well."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        LOADED,
        *args,
        env={**os.environ, "MHNOS_URL": server.url, "MHNOS_TOKEN": server.token, **env},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await asyncio.wait_for(process.communicate(), 40)
    assert process.returncode == 0, err.decode()
    return set(err.decode().splitlines()[-1].split(" "))


@pytest.mark.parametrize(
    "args",
    [
        ["ps"],
        ["ps", "-a", "--json"],
        ["stats", "--json"],
        ["write", "--enter", "1000", "x"],
        ["kill", "1000"],
        ["token", "list"],
        ["ls", "-l"],
        ["cat", "file"],
        ["cp", "file", ":/copied"],
        ["cp", ":/file", "/dev/null"],
        ["grep", "text"],
        ["rm", "file.txt"],
    ],
    ids=" ".join,
)
async def test_what_asks_one_thing_loads_no_event_loop(server: TestServer, args: list[str]) -> None:
    for name in ("file", "file.txt"):
        (server.workspace / name).write_text("text\n")
    args = [
        str(server.workspace / "file") if args[:2] == ["cp", arg] and arg == "file" else arg for arg in args
    ]
    async with connect(server.url, server.token) as runtime:
        process = await runtime.spawn("shell", "cat")
        args = [str(process.pid) if arg == "1000" else arg for arg in args]
        assert await loaded(server, *args) & LOOP == set()


async def test_run_loads_nothing_of_a_server(server: TestServer) -> None:
    modules = await loaded(server, "run", "shell", "true")
    assert "asyncio" in modules
    assert modules & SERVERS == set()


async def test_completion_of_a_pid_loads_no_event_loop(server: TestServer) -> None:
    """Click leaves the process where it has completed, so that the modules are told on the way out."""
    code = f"""
import atexit, sys
atexit.register(lambda: print(*(set(sys.modules) & {LOOP!r}), "loaded", file=sys.stderr))
from mhnos_runtime.cli.main import run
sys.exit(run())
"""
    async with connect(server.url, server.token) as runtime:
        process = await runtime.spawn("shell", "cat")
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            code,
            env={
                **os.environ,
                "MHNOS_URL": server.url,
                "MHNOS_TOKEN": server.token,
                "COMP_WORDS": "mhnos-runtime kill ",
                "COMP_CWORD": "2",
                "_MHNOS_RUNTIME_COMPLETE": "bash_complete",
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(child.communicate(), 40)
    assert str(process.pid) in out.decode()
    assert err.decode().splitlines()[-1].strip() == "loaded"
