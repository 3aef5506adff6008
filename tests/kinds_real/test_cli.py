"""`run workerd`, `run openclaw` and their companions, by the real command in front of the real programs."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mhnos_runtime.testing import TestServer
from tests.cli.console import command
from tests.kinds_real import compiled
from tests.kinds_real.conftest import CONFIG, PATIENCE, WORKER, Arena, opened
from tests.server.client import connect

pytestmark = pytest.mark.timeout(200)


@pytest.fixture
async def arena(folder: Path, engines: Path) -> AsyncIterator[Arena]:
    async with opened(folder, engines, "none", "host", "--max-memory", "2g") as arena:
        arena.write("hello.js", WORKER)
        arena.write("app.capnp", CONFIG.replace("PORT", "0").replace("MODULE", "hello.js"))
        yield arena


def env_of(server: TestServer) -> dict[str, str]:
    return {"MHNOS_STATE_DIR": str(server.state_dir), "MHNOS_URL": server.url, "NO_COLOR": "1"}


@contextlib.asynccontextmanager
async def running(arena: Arena, *args: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The command, and the address that it prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mhnos_runtime", "run", *args),
        env={"PATH": "/usr/bin:/bin", **env_of(arena.server)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(PATIENCE):
            while not (
                found := re.search(r"(http://[\d.:]+)[\],]", (await process.stderr.readline()).decode())
            ):
                assert process.returncode is None
        yield process, found[1]
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.communicate(), 60)


@pytest.mark.parametrize(
    "args", [("workerd", "hello.js"), ("--port", "http", "workerd", "app.capnp"), ("workerd", "app.capnp")]
)
async def test_it_prints_the_address_that_answers(arena: Arena, args: tuple[str, ...]) -> None:
    async with running(arena, *args) as (_process, url):
        assert await arena.get(f"{url}/cli") == "hello from /cli"


async def test_openclaw(arena: Arena, engines: Path) -> None:
    await asyncio.to_thread(compiled.give, arena.server.workspace, engines)
    async with running(arena, "openclaw", "gateway") as (_process, url):
        assert "ready" in await arena.get(f"{url}/readyz")
        # One that was silent all the while has been given up by now.
        async with connect(arena.server) as client:
            (row,) = (await client.ask("list"))["processes"]
            told = await client.ask("credentials", pid=row["pid"])
        code, out, _ = await command("credentials", str(row["pid"]), env=env_of(arena.server))
        assert (code, out.decode().strip()) == (0, told["token"])


async def test_a_config_is_printed_with_its_options(arena: Arena) -> None:
    options = ("--binding", "A=b", "--binding", "J:={}", "--compat-flag", "nodejs_compat", "--heap", "64")
    asked = ("run", "--print-config", *options, "workerd", "hello.js")
    code, out, _ = await command(*asked, env=env_of(arena.server))
    text = out.decode()
    assert code == 0
    assert '(name = "A", text = "b")' in text
    assert '(name = "J", json = "{}")' in text
    assert '"nodejs_compat"' in text
    assert "--max-old-space-size=64" in text
    assert (await arena.client.ask("list", all=True))["processes"] == []


async def test_what_is_wrong(arena: Arena) -> None:
    env = env_of(arena.server)
    code, _, err = await command("run", "workerd", "nowhere.js", env=env)
    assert (code, b"nowhere.js" in err) == (127, True)
    arena.write("bad.capnp", "(")
    code, _, err = await command("run", "workerd", "bad.capnp", env=env)
    assert (code, b"bad.capnp:1" in err, b"not ready: it ended before it was ready" in err) == (1, True, True)
    code, _, err = await command("run", "--binding", "x", "workerd", "hello.js", env=env)
    assert (code, b"neither NAME=TEXT nor NAME:=JSON" in err) == (2, True)
    code, _, err = await command("credentials", "4711", env=env)
    assert (code, b"4711 not found" in err) == (1, True)
