"""One connection to the routes of files that sends any bytes, and says what came back. Knows HTTP itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mhnos_runtime.testing import TestServer
from tests.server.conftest import server_in

PATIENCE = 60.0
SECRET = b"a secret outside of the workspace"


@dataclass
class Got:
    """length: what the head said; None where it did not. body: what came of it."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def length(self) -> int | None:
        return int(self.headers["content-length"]) if "content-length" in self.headers else None

    @property
    def whole(self) -> bool:
        return len(self.body) == self.length

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["code"])

    @property
    def version(self) -> str:
        return self.headers["etag"]


@contextlib.asynccontextmanager
async def beside_a_secret(directory: Path) -> AsyncIterator[TestServer]:
    """A server, and `secret/canary` beside its workspace, which must be as it was in the end."""
    async with server_in(directory) as server:
        secret = server.workspace.parent / "secret"
        secret.mkdir()
        (secret / "canary").write_bytes(SECRET)
        yield server
        assert [each.name for each in secret.iterdir()] == ["canary"]
        assert (secret / "canary").read_bytes() == SECRET


class Peer:
    def __init__(
        self, server: TestServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str
    ) -> None:
        self.server, self.reader, self.writer, self.token = server, reader, writer, token

    def head(self, method: str, target: str | bytes, **headers: Any) -> bytes:
        """target: as it is to be sent. headers: with _ for -."""
        sent = {"Host": self.server.url.partition("://")[2], "Authorization": f"Bearer {self.token}"}
        sent |= {name.replace("_", "-"): str(value) for name, value in headers.items()}
        raw = target.encode("latin-1") if isinstance(target, str) else target
        lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        return method.encode() + b" " + raw + b" HTTP/1.1\r\n" + lines.encode("latin-1") + b"\r\n"

    async def send(self, data: bytes) -> None:
        """Raises no error where the other side wants no more."""
        with contextlib.suppress(ConnectionError):
            self.writer.write(data)
            await asyncio.wait_for(self.writer.drain(), PATIENCE)

    async def ask(self, method: str, target: str | bytes, body: bytes = b"", **headers: Any) -> Got:
        if body or method == "PUT":
            headers.setdefault("Content_Length", len(body))
        await self.send(self.head(method, target, **headers) + body)
        return await (self.begun() if method == "HEAD" else self.answer())

    async def begun(self) -> Got:
        """The head of an answer."""
        lines = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PATIENCE)).decode("latin-1")
        status, *rest = lines.strip().split("\r\n")
        pairs = (line.partition(":") for line in rest)
        return Got(int(status.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}, b"")

    async def answer(self) -> Got:
        """As much of an answer as comes."""
        got = await self.begun()
        return await self.rest(got)

    async def rest(self, got: Got) -> Got:
        try:
            got.body = await asyncio.wait_for(self.reader.readexactly(got.length or 0), PATIENCE)
        except asyncio.IncompleteReadError as error:
            got.body = error.partial
        except ConnectionError:
            pass
        return got

    async def ended(self) -> bool:
        """Whether the connection ends, whatever comes before that."""
        with contextlib.suppress(ConnectionError):
            while await asyncio.wait_for(self.reader.read(1 << 20), PATIENCE):
                pass
        return True

    def vanish(self) -> None:
        self.writer.transport.abort()


@contextlib.asynccontextmanager
async def peer(server: TestServer, token: str = "", limit: int = 1 << 16) -> AsyncIterator[Peer]:
    host, _, port = server.url.partition("://")[2].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=limit)
    try:
        yield Peer(server, reader, writer, token or server.token)
    finally:
        writer.transport.abort()
