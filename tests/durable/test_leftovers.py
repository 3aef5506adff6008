"""Servers killed while they copy and unpack: the next one removes what is left of that."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from pathlib import Path

from mhnos_runtime.errors import MhnosError
from mhnos_runtime.files.paths import PARTIAL_PREFIX
from tests.durable.scene import client_of, eventually, kill_server, server_in
from tests.files.archives.packing import member
from tests.server.tus import Tus

MINE = f"{PARTIAL_PREFIX}mine"


def unfinished(workspace: Path) -> list[str]:
    return [name for each in workspace.rglob(PARTIAL_PREFIX + "*") if (name := each.name) != MINE]


async def test_a_copy(tmp_path: Path, dice: random.Random) -> None:
    async with server_in(tmp_path) as server:
        workspace = server.workspace
        (workspace / "deep").mkdir()
        (workspace / MINE).write_text("mine")
        for number in range(3000):
            (workspace / f"from/{number % 30}").mkdir(parents=True, exist_ok=True)
            (workspace / f"from/{number % 30}/{number}").write_bytes(dice.randbytes(100))
        async with client_of(server) as runtime:
            copying = asyncio.create_task(runtime.files.copy("/from", "/deep/copy"))
            await eventually(lambda: any((workspace / "deep").iterdir()))
            await kill_server(server)
            copying.cancel()
            with suppress(asyncio.CancelledError, MhnosError, OSError):
                await copying
        await eventually(lambda: not unfinished(workspace))
        assert (workspace / MINE).read_text() == "mine"


async def test_an_archive(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server:
        workspace, tus = server.workspace, Tus(server)
        (workspace / MINE).write_text("mine")
        size = 1 << 20
        head = member("deep/large", bytes(size))[: 512 + size // 2]
        length = {"Content-Length": str(2 * size), "Content-Type": "application/x-tar"}
        async with tus.connected() as (_, writer):
            writer.write(tus.request("PUT", "/v1/files/out?archive=tar", length) + head)
            await eventually(lambda: bool(unfinished(workspace)))
            await kill_server(server)
        await eventually(lambda: not unfinished(workspace))
        assert (workspace / MINE).read_text() == "mine"
        assert list((workspace / "out/deep").iterdir()) == []
