"""A client of tus 1.0 on plain sockets, for tests: each request as bytes, so that it can be cut anywhere.
Knows the protocol by itself."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from mhnos_runtime.testing import TestServer

PATIENCE = 20.0
OCTETS = "application/offset+octet-stream"


@dataclass(frozen=True)
class Answer:
    """headers: by their names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def offset(self) -> int:
        return int(self.headers["upload-offset"])

    @property
    def where(self) -> str:
        return self.headers["location"]

    @property
    def version(self) -> str:
        return self.headers["etag"].strip('"')


def metadata(**values: str) -> str:
    """Of Upload-Metadata."""
    return ",".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in values.items())


class Tus:
    """A client with one token. Every request has a connection of its own."""

    def __init__(self, server: TestServer, token: str | None = None) -> None:
        host, _, port = server.url.partition("://")[2].partition(":")
        self._server, self._token, self.host, self.port = server, token, host, int(port)

    def request(
        self, method: str, path: str, headers: Mapping[str, str | None] | None = None, body: bytes = b""
    ) -> bytes:
        """path: or a URL of this server. headers: None leaves one out."""
        path = path.removeprefix(f"http://{self.host}:{self.port}")
        sent: dict[str, str | None] = {
            "Host": f"{self.host}:{self.port}",
            "Authorization": f"Bearer {self._token or self._server.token}",
            "Tus-Resumable": "1.0.0",
            "Connection": "close",
            **({"Content-Length": str(len(body))} if body or method in ("POST", "PATCH") else {}),
            **(headers or {}),
        }
        lines = [f"{name}: {value}" for name, value in sent.items() if value is not None]
        return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode() + body

    def creation(self, length: int | None, body: bytes = b"", /, **values: str) -> bytes:
        size = {"Upload-Defer-Length": "1"} if length is None else {"Upload-Length": str(length)}
        kind = {"Content-Type": OCTETS} if body else {}
        return self.request(
            "POST", "/v1/uploads", {**size, **kind, "Upload-Metadata": metadata(**values)}, body
        )

    def patch(self, where: str, offset: int, body: bytes, /, **headers: str) -> bytes:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.request(
            "PATCH", where, {"Content-Type": OCTETS, "Upload-Offset": str(offset), **named}, body
        )

    async def send(self, data: bytes) -> Answer:
        async with self.connected() as (reader, writer):
            writer.write(data)
            return await read(reader, data.startswith(b"HEAD"))

    async def cut(self, data: bytes) -> None:
        """Send this much and end. Returns once the server has ended, too."""
        async with self.connected() as (reader, writer):
            writer.write(data)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
                writer.write_eof()
                await asyncio.wait_for(reader.read(), PATIENCE)

    async def abort(self, data: bytes) -> None:
        """Send this much and reset the connection at once (SO_LINGER, socket(7))."""
        async with self.connected() as (_, writer):
            writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            writer.write(data)
            await writer.drain()
            writer.transport.abort()

    async def resume(self, where: str, data: bytes) -> Answer:
        """Ask where it goes on, and go on, until nobody else is in between."""
        while True:
            asked = await self.head(where)
            if asked.status != 200:
                return asked
            answer = await self.go_on(where, asked.offset, data[asked.offset :])
            if answer.status != 409:
                return answer

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def create(self, length: int | None, body: bytes = b"", /, **values: str) -> Answer:
        return await self.send(self.creation(length, body, **values))

    async def go_on(self, where: str, offset: int, body: bytes, /, **headers: str) -> Answer:
        return await self.send(self.patch(where, offset, body, **headers))

    async def head(self, where: str) -> Answer:
        return await self.send(self.request("HEAD", where))

    async def delete(self, where: str) -> Answer:
        return await self.send(self.request("DELETE", where))


async def read(reader: asyncio.StreamReader, headless: bool = False) -> Answer:
    """One answer. headless: it has no body, whatever it says. Raises IncompleteReadError."""
    async with asyncio.timeout(PATIENCE):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)
        }
        length = 0 if headless else int(headers.get("content-length", 0))
        return Answer(int(head[0].split()[1]), headers, await reader.readexactly(length))
