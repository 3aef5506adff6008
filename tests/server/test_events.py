"""Events over real connections: of starts, readiness, ends, renames and removals."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from mhnos_runtime.testing import TestServer
from tests.server.client import Client, Message, connect
from tests.server.conftest import server_in
from tests.server.test_restart import end_server

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def events(client: Client, pid: int, last: str) -> list[Message]:
    """The events of a process so far, up to this one."""
    while not (found := _of(client, pid)) or found[-1]["event"] != last:
        await client.next()
    return found


def _of(client: Client, pid: int) -> list[Message]:
    return [each for each in client.seen if each["type"] == "process" and each["process"]["pid"] == pid]


async def test_the_life_of_a_process_in_events(client: Client, other: Client) -> None:
    assert (await client.ask("subscribe"))["type"] == "subscribed"
    before_ms = time.time_ns() // 1_000_000
    pid = await other.run("read x; exit 4", name="told")
    await other.ask("rename", pid=pid, name="told-2")
    await other.send("write", pid=pid, data="\n")
    await other.exit(pid)
    await other.ask("remove", pid=pid)
    told = await events(client, pid, "removed")
    assert [each["event"] for each in told] == ["started", "renamed", "ended", "removed"]
    times = [each["time"] for each in told]
    # The clock of the machine may be set meanwhile, but not by so much.
    assert before_ms - 5000 < min(times) <= max(times) < before_ms + 60_000
    assert told[0]["process"]["name"] == "told"
    assert told[2]["process"]["exit"]["code"] == 4
    assert (await client.ask("unsubscribe"))["type"] == "unsubscribed"
    await other.run("true")
    await client.quiet()
    assert client.seen[-2]["type"] == "unsubscribed"


async def test_a_record_that_goes_at_the_end_is_told_as_ended_and_removed(
    client: Client, other: Client
) -> None:
    await client.ask("subscribe")
    pid = await other.run("read x", remove=True, attach=False)
    await client.ask("kill", pid=pid)
    told = await events(client, pid, "ended")
    assert [each["event"] for each in told] == ["started", "ended"]
    await client.ask("remove", pid=pid)
    assert [each["event"] for each in await events(client, pid, "removed")][2:] == ["removed"]


async def test_events_of_a_new_server_come_to_who_subscribes_there(tmp_path: Path) -> None:
    """What happens while there is no server is in the list."""
    async with server_in(tmp_path) as server:
        async with connect(server) as client:
            await client.ask("subscribe")
            pid = await client.run("read x", attach=False)
            await events(client, pid, "started")
        await end_server(server, signal.SIGKILL)
        async with connect(server) as client:
            await client.ask("subscribe")
            assert pid in [row["pid"] for row in (await client.ask("list"))["processes"]]
            # What an earlier server left has not started now.
            assert not _of(client, pid)
            await client.ask("kill", pid=pid)
            assert [each["event"] for each in await events(client, pid, "ended")] == ["ended"]


async def test_a_hundred_clients_hear_of_each_start(server: TestServer) -> None:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect(server)) for _ in range(100)]
        await asyncio.gather(*(each.ask("subscribe") for each in clients))
        pids = [await clients[0].run("true", attach=False) for _ in range(5)]
        for client in clients:
            for pid in pids:
                await events(client, pid, "ended")
            order = [
                each["process"]["pid"]
                for each in client.seen
                if each["type"] == "process" and each["event"] == "started" and each["process"]["pid"] in pids
            ]
            assert order == pids
