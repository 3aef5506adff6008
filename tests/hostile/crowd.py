"""Strangers who hold connections open, each in a way of its own, and what the server has open for them. Knows
sockets, not what the server does about it. As a program: URL SOURCES NUMBER, until it is ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from mhnos_runtime.testing import TestServer

Way = Callable[[asyncio.StreamReader, asyncio.StreamWriter, str], Awaitable[None]]


async def silent(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter, _host: str) -> None:
    """Says nothing."""


async def trickle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
    """A byte a second, of a head that has no end."""
    for byte in f"GET /health HTTP/1.1\r\nHost: {host}\r\nX: {'x' * 600}".encode():
        writer.write(bytes([byte]))
        await asyncio.sleep(1)


async def half_a_head(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
    writer.write(f"GET /health HTTP/1.1\r\nHost: {host}\r\n".encode())


async def half_a_token(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
    writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer abc".encode())


async def no_body(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
    """Declares a body that never comes."""
    writer.write(f"POST /health HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000\r\n\r\n".encode())


async def chunk_by_chunk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
    writer.write(f"GET /health HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    for _ in range(600):
        writer.write(b"1\r\nx\r\n")
        await asyncio.sleep(1)


async def endless_body(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
    writer.write(f"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000000\r\n\r\n".encode())
    while True:
        writer.write(bytes(65536))
        await writer.drain()


async def expects(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
    """Waits for a word before it sends its body."""
    head = f"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n"
    writer.write(head.encode())


async def never_reads(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
    """One request behind the other, whose answers wait."""
    while True:
        writer.write(f"GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n".encode() * 100)
        await writer.drain()


async def half_a_handshake(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _host: str) -> None:
    """The first record of TLS, to whatever listens."""
    writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(32))


#: Ways that end when the server closes the connection only. `never_reads` reads nothing of that.
WAYS: tuple[Way, ...] = (
    silent,
    trickle,
    half_a_head,
    half_a_token,
    no_body,
    chunk_by_chunk,
    endless_body,
    expects,
    never_reads,
    half_a_handshake,
)


class Crowd:
    """Any number of them at once. dropped: how many connections the server has ended."""

    def __init__(self, url: str, source: str = "127.0.0.1", again: bool = False) -> None:
        """again: who was dropped comes back after a second, for as long as the crowd is there."""
        self.host = url.partition("://")[2]
        self._source = source
        self._again = again
        self._tasks: list[asyncio.Task[None]] = []
        self.connected = 0
        self.dropped = 0

    async def __aenter__(self) -> Crowd:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def add(self, way: Way, number: int = 1) -> None:
        self._tasks += [asyncio.create_task(self._stay(way)) for _ in range(number)]

    async def all_dropped(self, seconds: float) -> float:
        """Wait for it, and say how long it took."""
        start = time.monotonic()
        await asyncio.wait_for(asyncio.gather(*self._tasks), seconds)
        return time.monotonic() - start

    async def _stay(self, way: Way) -> None:
        while True:
            with contextlib.suppress(OSError):
                await self._once(way)
            self.dropped += 1
            if not self._again:
                return
            # As a client that is no flood.
            await asyncio.sleep(1)

    async def _once(self, way: Way) -> None:
        address, _, port = self.host.rpartition(":")
        reader, writer = await asyncio.open_connection(address, int(port), local_addr=(self._source, 0))
        self.connected += 1
        doing = asyncio.ensure_future(way(reader, writer, self.host))
        try:
            if way is never_reads:
                await doing
            else:
                while await reader.read(65536):
                    pass
        finally:
            doing.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await doing
            writer.transport.abort()


def sockets(server: TestServer) -> int:
    """How many sockets the server process has open."""
    found = 0
    for entry in Path(f"/proc/{server.server_pid()}/fd").iterdir():
        with contextlib.suppress(OSError):
            found += entry.readlink().name.startswith("socket:")
    return found


def memory_bytes(server: TestServer) -> int:
    """Of the server process's own (RssAnon)."""
    lines = Path(f"/proc/{server.server_pid()}/status").read_text().splitlines()
    return int(dict(line.split(":", 1) for line in lines)["RssAnon"].split()[0]) << 10


def allow_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))


async def _main(url: str, sources: list[str], number: int) -> None:
    crowds = [Crowd(url, source, again=True) for source in sources]
    for crowd in crowds:
        for way in WAYS:
            crowd.add(way, number // len(WAYS) // len(crowds))
    while sum(crowd.connected for crowd in crowds) < number:  # noqa: ASYNC110 - there is no event
        await asyncio.sleep(0.05)
    print("here", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    allow_descriptors()
    asyncio.run(_main(sys.argv[1], sys.argv[2].split(","), int(sys.argv[3])))
