"""A WebSocket client that sends any bytes, and says what came back. Knows RFC 6455 by itself: neither the
project's parser nor a library's."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from mhnos_runtime.testing import TestServer

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
PATIENCE = 20.0
NEWER = "mhnos.v1.1"


def masked(mask: bytes, data: bytes) -> bytes:
    """RFC 6455, 5.3, by whole numbers."""
    key = (mask * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data) ^ int.from_bytes(key)).to_bytes(len(data))


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    final: bool = True,
    reserved: int = 0,
    mask: bytes | None = b"\x12\x34\x56\x78",
    length: int | None = None,
    form: int | None = None,
) -> bytes:
    """A frame as asked for, right or wrong. reserved: the three bits. mask: None for none. length: what the
    header says, if it is to lie. form: 7, 16 or 64 bits of it."""
    size = len(payload) if length is None else length
    bits = form or (7 if size < 126 else 16 if size < 1 << 16 else 64)
    bit = 0 if mask is None else 0x80
    head = bytes([(0x80 if final else 0) | reserved << 4 | opcode])
    head += {
        7: lambda: bytes([bit | size]),
        16: lambda: struct.pack(">BH", bit | 126, size),
        64: lambda: struct.pack(">BQ", bit | 127, size),
    }[bits]()
    return head + (payload if mask is None else mask + masked(mask, payload))


def upgrade(server: TestServer, **changes: str | None) -> bytes:
    """The head of a handshake; changes: headers with _ for -, None leaves one out."""
    headers: dict[str, str | None] = {
        "Host": server.url.partition("://")[2],
        "Authorization": f"Bearer {server.token}",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        **{name.replace("_", "-"): value for name, value in changes.items()},
    }
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join(["GET / HTTP/1.1", *lines, "", ""]).encode("latin-1")


@dataclass
class Frame:
    opcode: int
    payload: bytes

    @property
    def code(self) -> int | None:
        """Of a close frame."""
        return struct.unpack(">H", self.payload[:2])[0] if self.payload else None


class Raw:
    """One connection after its handshake."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes, piece: int = 0) -> None:
        """All at once, or in pieces that the server receives one by one."""
        for start in range(0, len(data), piece or max(len(data), 1)):
            self.writer.write(data[start : start + (piece or len(data))])
            if piece:
                # Each piece is a segment of its own on the way (TCP_NODELAY), whatever the other side reads.
                await asyncio.sleep(0)
        await self.writer.drain()

    async def frame(self) -> Frame:
        """The next frame of the server's, which is never masked nor fragmented, in its shortest form."""
        async with asyncio.timeout(PATIENCE):
            first, second = await self.reader.readexactly(2)
            assert first & 0xF0 == 0x80, "fragments or reserved bits"
            assert not second & 0x80, "a server's frame with a mask"
            size = second
            if second == 126:
                size = int.from_bytes(await self.reader.readexactly(2))
                assert size > 125
            elif second == 127:
                size = int.from_bytes(await self.reader.readexactly(8))
                assert size > 0xFFFF
            return Frame(first & 0x0F, await self.reader.readexactly(size))

    async def message(self) -> dict[str, Any]:
        got = await self.frame()
        assert got.opcode == TEXT, got
        message: dict[str, Any] = json.loads(got.payload)
        return message

    async def closed(self) -> int | None:
        """Read up to the close frame, end the connection, read what is behind; return its code."""
        while (got := await self.frame()).opcode != CLOSE:
            pass
        self.writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            assert await self.reader.read() == b"", "something came behind the close frame"
        return got.code

    async def works(self) -> None:
        """The connection is good: a request is answered."""
        await self.send(frame(TEXT, b'{"type":"ping","id":"works"}'))
        while (await self.message()).get("id") != "works":
            pass


async def connect(server: TestServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = server.url.partition("://")[2].rpartition(":")
    return await asyncio.open_connection(host.strip("[]"), int(port))


@asynccontextmanager
async def raw(server: TestServer, protocol: str | None = NEWER, behind: bytes = b"") -> AsyncIterator[Raw]:
    """A connection that has read the first message. behind: sent in one piece with the handshake."""
    reader, writer = await connect(server)
    try:
        writer.write(upgrade(server, Sec_WebSocket_Protocol=protocol) + behind)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
        assert head.startswith(b"HTTP/1.1 101 "), head
        client = Raw(reader, writer)
        assert (await client.message())["type"] == "connected"
        yield client
    finally:
        writer.transport.abort()
