"""Exit reasons, limits, what is kept and for how long, and what a client leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from mhnos_runtime.testing import TestServer
from tests.server.client import Client, Message, connect, eventually
from tests.server.conftest import server_in

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TestServer]:
    flags = ("--kill-grace-seconds", "0.3", "--max-processes", "3", "--retain-count", "4")
    async with server_in(tmp_path_factory.mktemp("ending"), *flags) as running:
        yield running


async def rows(client: Client) -> dict[int, Message]:
    return {row["pid"]: row for row in (await client.ask("list", all=True))["processes"]}


ENDS = [
    ("exit 0", {}, None, (0, None, "exit")),
    ("exit 255", {}, None, (255, None, "exit")),
    ("kill -9 $$", {}, None, (None, "SIGKILL", "signal")),
    ("kill -SEGV $$", {}, None, (None, "SIGSEGV", "signal")),
    ("exec sleep 60", {}, "SIGTERM", (None, "SIGTERM", "killed")),
    ("exec sleep 60", {}, "KILL", (None, "SIGKILL", "killed")),
    ("exec sleep 60", {}, "USR1", (None, "SIGUSR1", "killed")),
    ("trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done", {}, "SIGTERM", (7, None, "killed")),
    ("exec sleep 60", {"options": {"timeout": 30}}, None, (None, "SIGTERM", "timeout")),
    (
        "trap '' TERM; while :; do sleep 0.01; done",
        {"options": {"timeout": 1000}},  # by then the shell has got to its trap
        None,
        (None, "SIGKILL", "timeout"),
    ),
]


@pytest.mark.parametrize(("command", "fields", "signal", "expected"), ENDS)
async def test_how_a_process_ended(
    client: Client, command: str, fields: Message, signal: str | None, expected: tuple[object, ...]
) -> None:
    pid = await client.run(command, **fields)
    if signal:
        if "up" in command:
            await client.text(pid, "up")
        await client.ask("kill", pid=pid, signal=signal)
    seen = [m for m in client.seen if m["type"] == "exit"]
    exit_ = seen[0] if seen else await client.exit(pid)
    assert (exit_["code"], exit_["signal"], exit_["reason"]) == expected
    assert exit_["evidence"].startswith("wait status")
    assert exit_["bytes"] == len(client.output(pid))
    record = (await rows(client))[pid]["exit"]
    assert (record["code"], record["signal"], record["reason"]) == expected
    assert record["runtimeMs"] == exit_["runtime"]


async def test_cpu_time_and_memory_are_measured_or_null(client: Client) -> None:
    """An invented 0 would be a lie."""
    source = "x = bytearray(60_000_000)\nfor n in range(10**6): pass"
    pid = await client.spawn("python", "-c", source)
    exit_ = await client.exit(pid)
    assert exit_["cpuMs"] >= 10
    assert 60_000_000 < exit_["maxRssBytes"] < 200_000_000
    pid = await client.run("exit 0")
    exit_ = await client.exit(pid)
    assert exit_["maxRssBytes"] is None or exit_["maxRssBytes"] > 100_000


async def test_a_process_ends_when_its_last_client_has_left_if_that_was_asked_for(
    server: TestServer, client: Client, other: Client
) -> None:
    async with connect(server) as first:
        pid = await first.run("exec sleep 60", lingerMs=500)
        await other.ask("attach", pid=pid)
    await other.ask("ping")
    await other.ask("detach", pid=pid)
    await client.ask("attach", pid=pid)
    assert (await rows(client))[pid]["exit"] is None
    await client.ask("detach", pid=pid)

    async def ended() -> bool:
        return (await rows(client))[pid]["exit"] is not None

    await eventually(ended)
    assert (await rows(client))[pid]["exit"]["reason"] == "idle"


async def test_a_process_that_nobody_ever_watched_ends_too(client: Client) -> None:
    pid = await client.run("exec sleep 60", lingerMs=20, attach=False)

    async def ended() -> bool:
        return bool((await rows(client))[pid]["status"] == "exited")

    await eventually(ended)


async def test_a_client_that_vanishes_leaves_as_well(server: TestServer, client: Client) -> None:
    async with connect(server) as first:
        pid = await first.run("exec sleep 60", lingerMs=20)
        first.vanish()

    async def ended() -> bool:
        return (await rows(client))[pid]["exit"] is not None

    await eventually(ended)


async def test_a_client_that_leaves_while_its_process_starts(server: TestServer, client: Client) -> None:
    """The process is there and counted; nobody watches it, so that it ends if that was asked for."""
    before = (await client.ask("list"))["stats"]
    async with connect(server) as first:
        await first.send("spawn", processType="shell", command="exec sleep 60", lingerMs=20)

    async def ended() -> bool:
        stats = (await client.ask("list"))["stats"]
        grown = {name: stats[name] - before[name] for name in stats}
        return grown == {"totalSpawned": 1, "totalKilled": 1, "active": 0}

    await eventually(ended)


async def test_no_more_processes_than_allowed(client: Client) -> None:
    """Also when they are asked for all at once: what is starting counts."""
    for number in range(6):
        await client.send("spawn", processType="shell", command="read x", id=number)
    answers = [await client.until_id(number) for number in range(6)]
    pids = [answer["pid"] for answer in answers[:3]]
    for answer in answers[3:]:
        assert answer["error"] == "Maximum process limit reached (3)"
        assert (answer["code"], answer["retry"]) == ("too-many-processes", True)
    await client.ask("kill", pid=pids.pop())
    pids.append(await client.run("read x"))
    for pid in pids:
        await client.ask("kill", pid=pid)


async def test_only_the_last_ended_processes_are_kept(client: Client, other: Client) -> None:
    pids = []
    for number in range(6):
        pids.append(await client.run(f"echo {number}"))
        await client.exit(pids[-1])
        await client.ask("ping")
    kept = [pid for pid in await rows(client) if pid in pids]
    assert kept == pids[2:]
    answer = await other.ask("attach", pid=pids[0])
    assert (answer["code"], answer["error"]) == ("unknown-process", f"Process {pids[0]} not found")
    await other.ask("attach", pid=pids[-1])
    assert other.output(pids[-1]) == "5\n"


async def test_logs_of_what_is_no_longer_kept_are_deleted(tmp_path: Path) -> None:
    async with server_in(tmp_path, "--retain-seconds", "0.05") as server, connect(server) as client:
        pid = await client.run("echo hi")
        log = server.state_dir / "processes" / f"{pid}.log"
        assert log.stat().st_mode & 0o777 == 0o600
        await client.exit(pid)

        async def forgotten() -> bool:
            return pid not in await rows(client) and not log.exists()

        await eventually(forgotten)
        stats = (await client.ask("list"))["stats"]
        assert stats == {"totalSpawned": 1, "totalKilled": 1, "active": 0}


async def test_stopping_the_runtime_ends_what_it_started(tmp_path: Path) -> None:
    async with server_in(tmp_path, "--kill-grace-seconds", "0.3") as server:
        async with connect(server) as client:
            pids = [
                await client.run("trap '' TERM HUP; echo $$; while :; do sleep 0.05; done") for _ in range(2)
            ]
            os_pids = [int(await client.text(pid, "\n")) for pid in pids]
            assert all(Path(f"/proc/{os_pid}").exists() for os_pid in os_pids)
            stopping = asyncio.create_task(server.stop())
            assert await client.expect_close() == 1001
            assert await stopping == 0
        assert not any(Path(f"/proc/{os_pid}").exists() for os_pid in os_pids)
        assert not (server.state_dir / "server.json").exists()
