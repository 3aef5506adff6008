"""A client of the wire alone: aiohttp and this file, with the frame header written down once more.

Must not use the project's own client, frames or parser: a mistake in them must not hide from the tests.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import WSMsgType

from mhnos_runtime.testing import TestServer

Message = dict[str, Any]

NEWER = "mhnos.v1.1"
HEADER = struct.Struct(">BBHIQ")
STREAMS = {1: "stdout", 2: "stderr"}
OUTPUT = ("stdout", "stderr")
#: seconds; nothing here takes long, but the machine may be busy
PATIENCE = 20.0

_numbers = itertools.count(1)


class Closed(Exception):
    """The server has closed the connection; `code` as in the close frame, None where there was none."""

    def __init__(self, code: int | None) -> None:
        super().__init__(f"closed with {code}")
        self.code = code


class Client:
    """One connection. seen: all that came so far, in order, binary frames in the shape of the text ones."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.seen: list[Message] = []
        self.hello: Message = {}

    async def send(self, type_: str | None = None, /, **fields: Any) -> None:
        await self.socket.send_str(json.dumps(fields if type_ is None else {"type": type_, **fields}))

    async def type(self, pid: int, data: bytes) -> None:
        """Send a binary frame of input."""
        await self.socket.send_bytes(HEADER.pack(3, 0, 0, pid, 0) + data)

    async def number(self, pid: int, offset: int, data: bytes) -> None:
        """Send a binary frame of numbered input."""
        await self.socket.send_bytes(HEADER.pack(3, 2, 0, pid, offset) + data)

    async def next(self, timeout: float = PATIENCE) -> Message:
        """The next message. Raises Closed, TimeoutError."""
        frame = await asyncio.wait_for(self.socket.receive(), timeout)
        if frame.type is WSMsgType.TEXT:
            message: Message = json.loads(frame.data)
        elif frame.type is WSMsgType.BINARY:
            message = _unpacked(frame.data)
        else:
            raise Closed(self.socket.close_code)
        self.seen.append(message)
        return message

    async def until(self, type_: str, /, **fields: Any) -> Message:
        """Read up to a message with this type and these fields; return it."""
        while True:
            message = await self.next()
            if message["type"] == type_ and all(message.get(k) == v for k, v in fields.items()):
                return message

    async def ask(self, type_: str, /, **fields: Any) -> Message:
        """Send a request; return its answer, whatever else comes meanwhile."""
        number = f"ask-{next(_numbers)}"
        await self.send(type_, id=number, **fields)
        return await self.until_id(number)

    async def ask_any(self, type_: str, /, **fields: Any) -> Message:
        """As `ask`; of a request that has no answer, its error, or that of a ping behind it."""
        number = f"ask-{next(_numbers)}"
        await self.send(type_, id=number, **fields)
        await self.send("ping", id=f"{number}-behind")
        while True:
            message = await self.next()
            if str(message.get("id", "")).startswith(number):
                return message

    async def until_id(self, number: object) -> Message:
        """Read up to the answer with this id; return it."""
        while True:
            message = await self.next()
            if message.get("id") == number:
                return message

    async def spawn(self, kind: str, command: str = "", *args: str, **fields: Any) -> int:
        """Start a process; return its pid."""
        answer = await self.ask(
            "spawn", **{"processType": kind, "command": command, "args": list(args), **fields}
        )
        assert answer["type"] == "spawned", answer
        return int(answer["pid"])

    async def run(self, command: str, **fields: Any) -> int:
        """Start a line of shell on pipes; return its pid."""
        return await self.spawn("shell", command, **{"pty": False, **fields})

    async def text(self, pid: int, expected: str, start: int = 0) -> str:
        """Read until what came from the process since message `start` contains `expected`; return it."""
        while expected not in (found := self.output(pid, start)):
            await self.next()
        return found

    def output(self, pid: int, start: int = 0) -> str:
        """Everything that came from the process since message `start`, as text."""
        parts = [m["data"] for m in self.seen[start:] if m["type"] in OUTPUT and m["pid"] == pid]
        if parts and isinstance(parts[0], bytes):
            return b"".join(parts).decode(errors="replace")
        return "".join(parts)

    async def quiet(self) -> None:
        """Read all that the server has sent so far: its answers come in order."""
        await self.ask("list")

    async def exit(self, pid: int) -> Message:
        return await self.until("exit", pid=pid)

    async def expect_close(self) -> int | None:
        """Read until the server closes; return the code."""
        try:
            while True:
                await self.next()
        except Closed as closed:
            return closed.code

    def vanish(self) -> None:
        """Lose the connection as a network does: no close frame, no goodbye."""
        # There is no public way to it.
        transport = self.socket._response.connection.transport  # type: ignore[union-attr]
        assert transport is not None
        transport.abort()


def _unpacked(data: bytes) -> Message:
    kind, flags, reserved, pid, offset = HEADER.unpack_from(data)
    assert reserved == 0
    assert flags in (0, 1)
    payload = data[HEADER.size :]
    shape = {"type": STREAMS[kind], "pid": pid, "offset": offset, "next": offset + len(payload)}
    return {**shape, "data": payload, "replay": bool(flags), "binary": True}


@asynccontextmanager
async def connect(
    server: TestServer, newer: bool = False, base: str = "", **options: Any
) -> AsyncIterator[Client]:
    """A connection that has read the server's first message. newer: with binary frames. base: by another
    address."""
    protocols = {"protocols": (NEWER,)} if newer else {}
    options = {"max_msg_size": 0, "autoping": True, **protocols, **options}
    url = f"{base or server.url}/?token={server.token}"
    async with aiohttp.ClientSession() as session, session.ws_connect(url, **options) as socket:
        client = Client(socket)
        client.hello = await client.next()
        assert client.hello["type"] == "connected"
        yield client


async def eventually(check: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something that nobody is told of is so; for what the system does, not the protocol."""
    async with asyncio.timeout(PATIENCE):
        while not await check():  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.01)


def joined(messages: Iterable[Message], pid: int, start: int) -> bytes:
    """The bytes of binary frames from offset `start`; fails where one is missing, doubled or out of order."""
    parts: list[bytes] = []
    for message in messages:
        if message["type"] in OUTPUT and message["pid"] == pid:
            assert message["offset"] == start, f"expected {start}, came {message['offset']}"
            parts.append(message["data"])
            start = message["next"]
        assert message["type"] != "gap", message
    return b"".join(parts)
