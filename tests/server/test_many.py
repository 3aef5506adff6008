"""Many at once: a thousand idle shells, and what a session and a viewer cost the server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mhnos_runtime.testing import TestServer
from tests.server.client import Client, connect
from tests.server.conftest import server_in

SHELLS = 1000
KIB = 1 << 10
#: The server's own memory for an idle session: what it maps of the log is the log's.
MOST_SESSION_BYTES = 32 * KIB


def own_memory(server: TestServer) -> int:
    lines = Path(f"/proc/{server.server_pid()}/status").read_text().splitlines()
    return int(dict(line.split(":", 1) for line in lines)["RssAnon"].split()[0]) << 10


@pytest.mark.timeout(120)
async def test_a_thousand_idle_shells(tmp_path: Path) -> None:
    flags = ("--max-processes", "2000", "--retention-bytes", "64k", "--kill-grace-seconds", "1")
    async with server_in(tmp_path, *flags) as server, connect(server) as client:
        first = await client.spawn("shell", "sh")
        before = own_memory(server)
        for number in range(1, SHELLS):
            await client.send("spawn", id=number, processType="shell", command="sh")
        pids = [first]
        while len(pids) < SHELLS:
            message = await client.next()
            assert message["type"] != "error", message
            if message["type"] == "spawned":
                pids.append(message["pid"])
        assert pids == list(range(first, first + SHELLS))
        await client.quiet()
        assert (own_memory(server) - before) / SHELLS <= MOST_SESSION_BYTES
        await every_shell_answers(client, pids)
        assert (await client.ask("list"))["stats"]["active"] == SHELLS


async def every_shell_answers(client: Client, pids: list[int]) -> None:
    for pid in pids:
        await client.send("write", pid=pid, data=f"echo $(({pid}+1))-alive\r")
    waiting = {f"{pid + 1}-alive\r\n": pid for pid in pids}
    start = len(client.seen)
    texts = dict.fromkeys(pids, "")
    while waiting:
        await client.next()
        for message in client.seen[start:]:
            if message["type"] == "stdout":
                texts[message["pid"]] += message["data"]
                expected = f"{message['pid'] + 1}-alive\r\n"
                if expected in texts[message["pid"]]:
                    waiting.pop(expected, None)
        start = len(client.seen)


async def test_idle_viewers_cost_little(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server, connect(server) as client:
        pid = await client.run("echo hi; read x")
        await client.text(pid, "hi")
        before = own_memory(server)
        async with asyncio.TaskGroup() as group:
            done = asyncio.Event()
            count = 0

            async def view(newer: bool) -> None:
                nonlocal count
                async with connect(server, newer=newer) as viewer:
                    await viewer.ask("attach", pid=pid)
                    count += 1
                    await done.wait()

            for number in range(100):
                group.create_task(view(number % 2 == 0))
            while count < 100:
                await client.ask("ping")
            assert (own_memory(server) - before) / 100 <= 64 * KIB
            [row] = (await client.ask("list"))["processes"]
            assert row["viewers"] == 101
            done.set()

        async def gone() -> bool:
            return bool((await client.ask("list"))["processes"][0]["viewers"] == 1)

        while not await gone():
            pass
