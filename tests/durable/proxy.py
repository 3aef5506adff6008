"""A network that fails: a TCP proxy that cuts, stalls, delays, splits and reorders. Knows bytes only."""

from __future__ import annotations

import asyncio
import contextlib
import random
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

#: seconds; a connection lives about so long, and at most LONGEST_LIFE_S
LIFE_S = 1.5
LONGEST_LIFE_S = 3.0
#: seconds; below the server's stall time, within which nobody's hold lapses
LONGEST_STALL_S = 2.0


class Proxy:
    """Listens on a port of its own; `calm` ends the faults."""

    def __init__(self, target: str, dice: random.Random) -> None:
        parts = urlsplit(target)
        self._host, self._port = parts.hostname, parts.port
        self._dice = dice
        self._tasks: set[asyncio.Task[None]] = set()
        # Kept to the end, so that none is collected before it is closed.
        self._writers: list[asyncio.StreamWriter] = []
        self.faults = dict.fromkeys(("cut", "stalled", "delayed", "split", "held", "refused"), 0)
        self.calm = False
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    def _happens(self, fault: str, chance: float) -> bool:
        happens = not self.calm and self._dice.random() < chance
        self.faults[fault] += happens
        return happens

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Not a coroutine: one that ends before it has begun would leave its connection open."""
        self._writers.append(writer)
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # What both sides have not read yet is lost, and neither is told more than that.
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Held for different times, connections reach the server in another order.
        if self._happens("held", 0.5):
            await asyncio.sleep(self._dice.random() * 0.3)
        if not self._happens("refused", 0.1):
            with contextlib.suppress(OSError):
                await self._connect(reader, writer)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opening = asyncio.ensure_future(asyncio.open_connection(self._host, self._port))
        try:
            up_reader, up_writer = await asyncio.shield(opening)
            self._writers.append(up_writer)
        except asyncio.CancelledError:
            # One that is just being made would be left open by nobody's fault but this.
            with contextlib.suppress(OSError):
                self._writers.append((await opening)[1])
            raise
        pumps = {
            asyncio.create_task(self._pump(reader, up_writer)),
            asyncio.create_task(self._pump(up_reader, writer)),
        }
        life_s = None if self.calm else min(self._dice.expovariate(1 / LIFE_S), LONGEST_LIFE_S)
        try:
            done, _ = await asyncio.wait(pumps, timeout=life_s, return_when=asyncio.FIRST_COMPLETED)
            self.faults["cut"] += not done
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            up_writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if self._happens("stalled", 0.005):
                await asyncio.sleep(self._dice.random() * LONGEST_STALL_S)
            elif self._happens("delayed", 0.1):
                await asyncio.sleep(self._dice.random() * 0.05)
            for piece in self._pieces(data):
                writer.write(piece)
                await writer.drain()

    def _pieces(self, data: bytes) -> list[bytes]:
        if not self._happens("split", 0.2):
            return [data]
        cuts = sorted(self._dice.randrange(len(data) + 1) for _ in range(self._dice.randrange(1, 8)))
        return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
