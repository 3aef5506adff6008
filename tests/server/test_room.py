"""The server's last descriptors: whatever takes the others, starts are all or nothing, and /health answers.

With two or three free ones a program once ran that stood in no list, could not be ended, counted against the
limit, and whose start was never answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from mhnos_runtime.proc import children
from mhnos_runtime.server.processes import room
from mhnos_runtime.testing import TestServer
from tests.server.client import Client, connect, eventually
from tests.server.conftest import server_in

MARK = "600.25"


@contextlib.contextmanager
def limited(os_pid: int, most: int) -> Iterator[None]:
    """Let a process open no descriptor above a number."""
    before = resource.prlimit(os_pid, resource.RLIMIT_NOFILE)
    resource.prlimit(os_pid, resource.RLIMIT_NOFILE, (most, before[1]))
    try:
        yield
    finally:
        resource.prlimit(os_pid, resource.RLIMIT_NOFILE, before)


def descriptors(os_pid: int) -> list[int]:
    return [int(name) for name in os.listdir(f"/proc/{os_pid}/fd")]


def highest(os_pid: int) -> int:
    return max(descriptors(os_pid)) + 1


def sleepers(server: TestServer) -> int:
    """Programs of the test that run, whoever knows of them."""
    found = 0
    for os_pid in children(server.pid):
        with contextlib.suppress(OSError):
            found += MARK.encode() in Path(f"/proc/{os_pid}/cmdline").read_bytes()
    return found


async def start(client: Client, pty: bool) -> bool:
    """Whether it was started; answered it is in any case, and then it stands in the list."""
    answer = await client.ask("spawn", processType="shell", command=f"exec sleep {MARK}", pty=pty)
    listed = [row["pid"] for row in (await client.ask("list"))["processes"] if row["status"] == "running"]
    if answer["type"] == "error":
        assert (answer["code"], answer["retry"]) == ("start-failed", True)
        assert listed == []
        return False
    assert listed == [answer["pid"]]
    await client.ask("kill", pid=answer["pid"], signal="SIGKILL")
    return True


@pytest.mark.parametrize("pty", [True, False])
async def test_each_start_is_all_or_nothing(tmp_path: Path, pty: bool) -> None:
    async with server_in(tmp_path, "--max-processes", "2") as server, connect(server) as client:
        assert await start(client, pty)
        os_pid = server.server_pid()
        for free in (*range(12), room.HEALTH_DESCRIPTORS - 1, room.HEALTH_DESCRIPTORS + 40):
            with limited(os_pid, highest(os_pid) + free):
                await start(client, pty)
            assert await asyncio.to_thread(sleepers, server) == 0, f"a ghost, with {free} free descriptors"
        assert await start(client, pty)
        assert server.server_pid() == os_pid


@pytest.mark.parametrize("free", range(5))
async def test_what_the_server_cannot_take_is_ended(tmp_path: Path, free: int) -> None:
    """Descriptors run out between the request and the supervisor's answer."""
    async with server_in(tmp_path, "--max-processes", "1") as server, connect(server) as client:
        assert await start(client, pty=False)
        os_pid = server.server_pid()
        open_before = len(descriptors(os_pid))
        os.kill(server.pid, signal.SIGSTOP)
        await client.send("spawn", id="it", processType="shell", command=f"exec sleep {MARK}", pty=False)

        async def asked() -> bool:
            """It keeps the folder open until it is answered."""
            return len(descriptors(os_pid)) > open_before

        await eventually(asked)
        with limited(os_pid, highest(os_pid) + free):
            os.kill(server.pid, signal.SIGCONT)
            answer = await client.until_id("it")
        if answer["type"] == "spawned":
            await client.ask("kill", pid=answer["pid"], signal="SIGKILL")
        else:
            assert (answer["code"], answer["retry"]) == ("start-failed", True)

            async def told() -> bool:
                """By the supervisor, which nobody waits for."""
                return "could not take a process over" in server.log.read_text()

            await eventually(told)

        async def gone() -> bool:
            """It counts until the supervisor has reaped it, which is later than its death."""
            answer = await client.ask("spawn", processType="shell", command="exit 0", pty=False)
            if answer["type"] == "error":
                assert (answer["code"], answer["retry"]) == ("too-many-processes", True)
            return bool(answer["type"] == "spawned")

        await eventually(gone)
        assert await asyncio.to_thread(sleepers, server) == 0

        async def only_ended() -> bool:
            return not (await client.ask("list"))["processes"]

        await eventually(only_ended)
        # The next one is told of the right process.
        assert await start(client, pty=True)
        assert server.server_pid() == os_pid


async def fill(
    session: aiohttp.ClientSession, url: str
) -> tuple[list[aiohttp.ClientWebSocketResponse], aiohttp.WSServerHandshakeError]:
    """Connect, and stay, until that is refused."""
    kept = []
    for _ in range(400):
        try:
            kept.append(await session.ws_connect(url))
        except aiohttp.WSServerHandshakeError as error:
            return kept, error
    raise AssertionError("400 clients were let in")


async def test_clients_leave_room_for_starts_and_health(tmp_path: Path) -> None:
    async with server_in(tmp_path, "--max-processes", "20") as server, connect(server) as client:
        os_pid = server.server_pid()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            with limited(os_pid, highest(os_pid) + 500):
                clients, refused = await fill(session, f"{server.url}/?token={server.token}")
                assert len(clients) > 50
                assert refused.status == 503
                assert refused.headers is not None
                assert refused.headers["Retry-After"]
                for number in range(room.KEPT_STARTS):
                    await client.send("spawn", id=number, processType="shell", command="cat", pty=True)
                started = [await client.until("spawned") for _ in range(room.KEPT_STARTS)]
                assert len({each["pid"] for each in started}) == room.KEPT_STARTS
                async with session.get(f"{server.url}/health") as response:
                    assert (await response.json())["processes"]["active"] == room.KEPT_STARTS
        async with connect(server) as another:
            assert len((await another.ask("list"))["processes"]) == room.KEPT_STARTS
