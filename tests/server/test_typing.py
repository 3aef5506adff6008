"""Whoever types into a terminal has floods of others held back; whoever writes into a pipe has not."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable

import pytest

from mhnos_runtime.supervisor.loop import PAUSE_SECONDS
from mhnos_runtime.testing import TestServer
from tests.server.client import Client, connect, eventually

#: In one turn of what is held back: a read of a terminal.
TURN_BYTES = 4096 * max(1, len(os.sched_getaffinity(0)) // 2)
FLOOD = "import os, tty; tty.setraw(1)\nwhile True: os.write(1, b'y' * 65536)\n"

Key = Callable[[], Awaitable[None]]


async def no_key() -> None:
    pass


def numbered(client: Client, pid: int) -> Key:
    sent = 0

    async def key() -> None:
        nonlocal sent
        await client.number(pid, sent, b"x")
        sent += 1

    return key


async def written(client: Client, pid: int) -> int:
    rows = (await client.ask("list"))["processes"]
    return int(next(row["nextOffset"] for row in rows if row["pid"] == pid))


def faster(client: Client, flood: int, key: Key) -> Callable[[], Awaitable[bool]]:
    """Looks whether a flood goes on faster than what is held back can, while keys are typed."""

    async def look() -> bool:
        begin = time.monotonic()
        first = await written(client, flood)
        for _ in range(10):
            await key()
            await asyncio.sleep(0.01)
        grown = await written(client, flood) - first
        return grown > ((time.monotonic() - begin) / PAUSE_SECONDS + 2) * TURN_BYTES

    return look


def not_(look: Callable[[], Awaitable[bool]]) -> Callable[[], Awaitable[bool]]:
    async def opposite() -> bool:
        return not await look()

    return opposite


@pytest.mark.parametrize("way", ["write", "frame", "numbered"])
async def test_typing_holds_floods_back(server: TestServer, script: Callable[[str], str], way: str) -> None:
    async with connect(server, newer=True) as client:
        flood = await client.spawn("python", script(FLOOD), attach=False, pty=True)
        quiet = await client.spawn("shell", "exec cat >/dev/null")
        await client.ask("openInput", pid=quiet, client="me")
        keys: dict[str, Key] = {
            "write": lambda: client.send("write", pid=quiet, data="x"),
            "frame": lambda: client.type(quiet, b"x"),
            "numbered": numbered(client, quiet),
        }
        await eventually(faster(client, flood, no_key))
        await eventually(not_(faster(client, flood, keys[way])))
        await eventually(faster(client, flood, no_key))
        await client.send("kill", pid=flood)
        await client.send("kill", pid=quiet)


async def test_data_for_a_pipe_is_not_typed(server: TestServer, script: Callable[[str], str]) -> None:
    async with connect(server, newer=True) as client:
        flood = await client.spawn("python", script(FLOOD), attach=False, pty=True)
        pipe = await client.run("exec cat >/dev/null")
        await eventually(faster(client, flood, no_key))
        await client.type(pipe, b"x")
        await client.quiet()
        await eventually(faster(client, flood, lambda: client.type(pipe, b"x")))
        await client.send("kill", pid=flood)
        await client.send("kill", pid=pipe)
