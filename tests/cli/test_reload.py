"""`reload` and `config` with a real runtime: what changes while all runs on, what waits, what is refused."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from mhnos_runtime.client import connect
from mhnos_runtime.testing import TestServer
from tests.cli.console import command

pytestmark = pytest.mark.timeout(120)

DESK, LAB = "https://desk.example", "https://lab.example"


class Runtime:
    """One with a configuration file of its own."""

    def __init__(self, folder: Path, server: TestServer) -> None:
        self.file = folder / "config.toml"
        self.server = server

    async def run(self, *args: str, **variables: str) -> tuple[int, str, str]:
        env = {"MHNOS_STATE_DIR": str(self.server.state_dir), **variables}
        code, out, err = await command(*args, env=env)
        return code, out.decode(), err.decode()

    async def lets_in(self, origin: str) -> bool:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.server.url}/health", headers={"Origin": origin}) as response,
        ):
            return response.status == 200

    def logged(self, message: str) -> list[dict[str, str]]:
        lines = [json.loads(line) for line in self.server.log.read_text().splitlines()]
        return [line for line in lines if line["msg"] == message]


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    file = tmp_path / "config.toml"
    file.write_text(f'allow_origin = ["{LAB}"]\n')
    flags = ("--config", str(file), "--max-tasks", "99")
    async with TestServer(tmp_path, *flags, environment={"MHNOS_LOG_FORMAT": "json"}) as server:
        yield Runtime(tmp_path, server)


async def test_a_reload_applies_origins_and_hosts_and_ends_nothing(runtime: Runtime) -> None:
    """A page or a name that was to be let in took a new start, which ended all processes."""
    async with connect(runtime.server.url, runtime.server.token) as client:
        process = await client.spawn("shell", "read line; echo $line", pty=False)
        assert (await runtime.lets_in(LAB), await runtime.lets_in(DESK)) == (True, False)
        runtime.file.write_text(f'allow_origin = ["{DESK}"]\nmax_processes = 7\nmax_tasks = 1\n')
        code, out, _ = await runtime.run("reload", MHNOS_ALLOW_HOST="box.example", MHNOS_MAX_MEMORY="2g")
        first, *told = out.splitlines()
        assert code == 0
        assert first.endswith(" s; 1 process went on")
        assert told == [
            f"allow_origin is {DESK} by file {runtime.file}:allow_origin, and was {LAB}",
            "allow_host is box.example by variable MHNOS_ALLOW_HOST, and was none",
            "max_memory stays 1g until the next start: 2g by variable MHNOS_MAX_MEMORY",
            f"max_processes stays 50 until the next start: 7 by file {runtime.file}:max_processes",
        ]
        assert (await runtime.lets_in(LAB), await runtime.lets_in(DESK)) == (False, True)
        await process.write("on it goes\n")
        assert (await process.wait()).code == 0
    # What was brought along once stays, and what waits is told each time.
    code, out, _ = await runtime.run("reload")
    assert out.splitlines()[1:] == told[3:]
    assert [line["setting"] for line in runtime.logged("a setting has changed")] == [
        "allow_origin",
        "allow_host",
    ]


async def test_a_signal_applies_the_file_too(runtime: Runtime) -> None:
    runtime.file.write_text("")
    os.kill(runtime.server.pid, signal.SIGHUP)
    async with asyncio.timeout(60):
        while await _unsure(runtime, LAB):  # noqa: ASYNC110 - another process's
            await asyncio.sleep(0.05)
    (line,) = runtime.logged("a setting has changed")
    assert (line["setting"], line["old"], line["new"], line["source"]) == (
        "allow_origin",
        LAB,
        "none",
        "default",
    )


async def _unsure(runtime: Runtime, origin: str) -> bool:
    """Whether it is let in, or nobody answers."""
    try:
        return await runtime.lets_in(origin)
    except (aiohttp.ClientError, OSError):
        return True


async def test_a_mistake_in_the_file_changes_nothing(runtime: Runtime) -> None:
    runtime.file.write_text('allow_origin = ["*"]\n')
    pid = runtime.server.server_pid()
    code, out, err = await runtime.run("reload", "--wait", "60s")
    assert (code, out) == (1, "")
    assert err.startswith('mhnos-runtime: not reloaded, all runs on: allow_origin is "[')
    assert runtime.server.server_pid() == pid
    assert await runtime.lets_in(LAB)


async def test_config_shows_what_runs_and_what_waits(runtime: Runtime) -> None:
    """It showed what another start would use, as if that were in force."""
    runtime.file.write_text(f'allow_origin = ["{DESK}"]\nmax_processes = 7\n')
    code, out, _ = await runtime.run("config", MHNOS_MAX_MEMORY="2g")
    lines = out.splitlines()
    assert code == 0
    assert lines[0] == f"The runtime that runs at {runtime.server.url} (pid {runtime.server.pid}) uses:"
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in lines[1:]}
    assert rows["max_tasks"] == "99 flag --max-tasks"
    assert rows["max_processes"] == f"50 default 7 by file {runtime.file}:max_processes, for the next start"
    assert rows["max_memory"] == "1g default 2g by variable MHNOS_MAX_MEMORY, for the next start"
    expected = (
        f"{LAB} file {runtime.file}:allow_origin {DESK} by file {runtime.file}:allow_origin, for a reload"
    )
    assert rows["allow_origin"] == expected
    _, out, _ = await runtime.run("config", "--json")
    found = {row["name"]: row for row in json.loads(out)}
    assert found["max_tasks"]["running"]
    assert (found["max_processes"]["value"], found["max_processes"]["waiting"]["new"]) == ("50", "7")
    assert found["host"]["waiting"] is None


async def test_config_shows_a_start_where_it_is_asked_to_or_nothing_runs(
    runtime: Runtime, tmp_path: Path
) -> None:
    for asked in (["--start"], ["--config", str(runtime.file)]):
        _, out, _ = await runtime.run("config", *asked, MHNOS_MAX_PROCESSES="8")
        assert out.splitlines()[0] == "What `serve` would use here:"
        assert "WAITING" not in out
        assert "variable MHNOS_MAX_PROCESSES" in out
    _, out, _ = await runtime.run("config", MHNOS_STATE_DIR=str(tmp_path / "other"))
    assert out.splitlines()[0] == "No runtime runs. What `serve` would use here:"
    _, out, _ = await runtime.run("config", "--json", MHNOS_STATE_DIR=str(tmp_path / "other"))
    assert not any(row["running"] for row in json.loads(out))


async def test_config_does_not_say_that_nothing_runs_of_what_it_cannot_ask(
    runtime: Runtime, tmp_path: Path
) -> None:
    """So it was with a certificate that the machine does not trust; here it is the token that is no use."""
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    (other / "server.json").write_bytes((runtime.server.state_dir / "server.json").read_bytes())
    (other / "token").write_text("x" * 43)
    code, out, _ = await runtime.run("config", MHNOS_STATE_DIR=str(other))
    told = f"The runtime at {runtime.server.url} (pid {runtime.server.pid}) cannot be asked: "
    assert (code, out.startswith(told)) == (0, True)


async def test_config_says_that_a_reload_would_not_work(runtime: Runtime) -> None:
    runtime.file.write_text("colour = 1\n")
    code, out, err = await runtime.run("config")
    assert code == 0
    assert "max_tasks" in out
    assert "neither a reload nor a start would work" in err
    assert "unknown key 'colour'" in err
