"""10,000 random and 10,000 mutated frames against a live server: neither it nor what runs notices."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from mhnos_runtime.testing import TestServer
from tests.hostile.odd import TOKENS
from tests.server.client import HEADER, Client, Closed, connect
from tests.server.conftest import server_in

FRAMES = 10_000
#: Frames on one connection; some end it, as the last one, with a frame that is no UTF-8.
ROW = 250
#: Of processes that have to live, and of those that may be typed into, resized and killed.
SAFE, FAIR_GAME = (1000, 1001), (1002, 1003)

Frame = tuple[bytes, bool]

GOOD: list[object] = [
    {
        "type": "spawn",
        "id": 1,
        "processType": "shell",
        "command": "true",
        "args": ["a"],
        "options": {"cwd": "/"},
    },
    {
        "type": "spawn",
        "processType": "python",
        "command": "-V",
        "pty": {"cols": 80, "rows": 24},
        "lingerMs": 0,
    },
    {"type": "attach", "id": "x", "pid": 1002, "from": 0},
    {"type": "attach", "pid": 1003, "tail": 10},
    {"type": "detach", "pid": 1002},
    {"type": "write", "pid": 1002, "data": "echo \u00e9\ud83d\ude00\r"},
    {"type": "closeStdin", "pid": 1003},
    {"type": "resize", "pid": 1002, "cols": 80, "rows": 24},
    {"type": "kill", "id": [], "pid": 1003, "signal": "SIGINT", "escalate": False},
    {"type": "list", "id": {"a": 1}, "all": True},
    {"type": "status", "id": None},
    {"type": "ping", "id": 1.5},
    {"type": "stats", "pid": 1002},
    {"type": "ack", "pid": 1002, "offset": 5},
    {
        "type": "fsync",
        "operation": "push",
        "files": [{"path": "/f/x", "kind": "file", "content": [1, 2, 255]}],
    },
    {"type": "fsync", "operation": "push", "files": [{"path": "/f", "kind": "directory"}]},
]
PIECES = [*TOKENS, b"type"]


def seed() -> int:
    return int(os.environ.get("MHNOS_TEST_SEED", "") or random.SystemRandom().getrandbits(32))


def noise(dice: random.Random) -> Frame:
    """Bytes of any kind: binary, text, or pieces of JSON."""
    size = dice.choice([0, 1, 2, 15, 16, 17, 100, 1000])
    shape = dice.random()
    if shape < 0.4:
        return dice.randbytes(size), True
    if shape < 0.5:
        pid = dice.choice([0, 1, *FAIR_GAME, 2**32 - 1])
        header = HEADER.pack(dice.randrange(6), dice.randrange(3), dice.randrange(2), pid, 0)
        return header + dice.randbytes(size), True
    if shape < 0.75:
        return "".join(map(chr, dice.choices(range(0xD7FF), k=size // 4))).encode(), False
    return b"".join(dice.choices(PIECES, k=size // 10)), False


def value(dice: random.Random, depth: int = 0) -> object:
    """Any JSON value."""
    plain = [
        None,
        True,
        -1,
        0,
        1002,
        1003,
        2**53,
        2**70,
        1.5,
        -1e308,
        "",
        "SIGTERM",
        "\ud800",
        "..",
        "/",
        "x" * 500,
        "shell",
    ]
    if depth > 3 or dice.random() < 0.7:
        return dice.choice(plain)
    if dice.random() < 0.5:
        return [value(dice, depth + 1) for _ in range(dice.randrange(4))]
    return {str(dice.choice(["type", "pid", "a", "__proto__"])): value(dice, depth + 1) for _ in range(3)}


def mutated(dice: random.Random) -> Frame:
    """A good request with fields that are gone, new or of another kind, or with a few wrong bytes."""
    request = json.loads(json.dumps(dice.choice(GOOD)))
    if dice.random() < 0.7:
        for _ in range(dice.randrange(1, 3)):
            field = dice.choice([*request, "id", "pid", "options"])
            request[field] = value(dice)
            if dice.random() < 0.2:
                del request[field]
        return harmless(request), False
    data = bytearray(harmless(request))
    for _ in range(dice.randrange(1, 4)):
        place = dice.randrange(len(data) + 1)
        data[place : place + dice.randrange(3)] = dice.choice(
            [b"", dice.choice(PIECES), bytes([dice.randrange(128)])]
        )
    return (b"{}" if any(str(pid).encode() in data for pid in SAFE) else bytes(data)), False


def harmless(request: object) -> bytes:
    """JSON without what is no UTF-8: half of a surrogate pair stays as an escape."""
    return json.dumps(request).encode()


async def _send(server: TestServer, frames: list[Frame], newer: bool) -> None:
    async with connect(server, newer=newer) as client:
        reader = asyncio.create_task(_read(client))
        for data, binary in frames:
            await client.socket.send_frame(
                data, aiohttp.WSMsgType.BINARY if binary else aiohttp.WSMsgType.TEXT
            )
        if newer:
            await client.send("ping", id="the last one")
        else:
            await client.socket.send_frame(b"\xff", aiohttp.WSMsgType.TEXT)
        assert await reader == (None if newer else 1007)


async def _read(client: Client) -> int | None:
    """Read all answers; the close code, or None when the last one has come."""
    try:
        while (await client.next()).get("id") != "the last one":
            client.seen.clear()
    except Closed as closed:
        return closed.code
    return None


@pytest.mark.parametrize("make", [noise, mutated])
async def test_frames_of_any_kind_harm_nobody(tmp_path: Path, make: Callable[[random.Random], Frame]) -> None:
    number = seed()
    print(f"MHNOS_TEST_SEED={number}")
    dice = random.Random(number)
    rows = [[make(dice) for _ in range(ROW)] for _ in range(FRAMES // ROW)]
    async with server_in(tmp_path) as server, connect(server) as watcher:
        pids = [await watcher.spawn("shell", "cat"), await watcher.run("cat")]
        targets = [await watcher.spawn("shell", attach=False), await watcher.run("cat", attach=False)]
        assert (*pids, *targets) == (*SAFE, *FAIR_GAME)
        server_pid = server.server_pid()
        for at in range(0, len(rows), 4):
            await asyncio.gather(*(_send(server, row, n % 2 == 0) for n, row in enumerate(rows[at : at + 4])))
            for pid in pids:
                await watcher.send("write", pid=pid, data=f"row {at}.\r")
                await watcher.text(pid, f"row {at}.")
        assert server.server_pid() == server_pid
        assert "defect" not in server.log.read_text()
        assert "Traceback" not in server.log.read_text()
