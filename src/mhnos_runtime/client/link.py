"""One WebSocket connection, from the upgrade to its close. Knows the event loop, not requests."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from mhnos_runtime.client import dial
from mhnos_runtime.client.address import Address, parse
from mhnos_runtime.client.dial import SslOption
from mhnos_runtime.client.errors import ProtocolViolation
from mhnos_runtime.client.opening import Opening
from mhnos_runtime.client.received import Goodbye, Inbound, Ping, Received
from mhnos_runtime.client.stream import Stream
from mhnos_runtime.wire import messages as m
from mhnos_runtime.wire import websocket as rfc

CONNECT_TIMEOUT_S = 10.0  # well above a TLS handshake by satellite; a server that hangs is soon noticed
CLOSE_TIMEOUT_S = 2.0  # a goodbye is a courtesy: a peer that does not answer it is left
HEARTBEAT_S = 20.0  # below the 30 s to 60 s after which NATs and proxies forget an idle connection
NEXT_ADDRESS_S = 0.25  # RFC 8305, 8: how long the first address of a name is tried alone


class LinkClosed(Exception):
    """The connection is over; `code` is the WebSocket close code (RFC 6455, 7.4), 1006 if there was none."""

    def __init__(self, code: int | None) -> None:
        super().__init__(f"close code {code}")
        self.code = code or 1006


class Link:
    """An open connection; `hello` is the server's first message."""

    hello: m.Connected

    def __init__(self, stream: Stream, opening: Opening) -> None:
        """Made by `open`."""
        self._stream = stream
        self._inbound = Inbound()
        self._inbound.feed(opening.rest)
        self._over: LinkClosed | None = None

    @classmethod
    async def open(
        cls,
        url: str,
        token: str | None,
        *,
        ssl_option: SslOption = True,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> Link:
        """Connect and take the server's greeting.

        Raises ConnectFailed (worth another attempt where its `retry` says so), Unauthorized, Forbidden.
        """
        address = parse(url)
        opening = Opening(url, address, token)
        stream = Stream()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await _connect(stream, address, ssl_option)
                await _shake_hands(stream, opening)
                made = cls(stream, opening)
                made.hello = opening.greeting(await made._first())
        except BaseException as error:
            stream.abort()
            if isinstance(error, TimeoutError):
                raise opening.late(CONNECT_TIMEOUT_S) from None
            if isinstance(error, OSError):
                raise dial.failed(url, error) from error
            raise
        stream.start_heartbeat(heartbeat_s)
        return made

    async def receive(self) -> Received:
        """The next message or frame. Raises LinkClosed; and ProtocolViolation, after which it is closed."""
        while True:
            if self._over is not None:
                raise self._over
            try:
                got = self._inbound.next()
            except ProtocolViolation:
                self._end(rfc.PROTOCOL_ERROR)
                raise
            if got is None:
                await self._more()
            elif isinstance(got, Ping):
                self._stream.answer_ping(got.payload)
            elif isinstance(got, Goodbye):
                self._end(got.code)
            else:
                return got

    async def send(self, message: bytes) -> None:
        """Send one text frame. A connection that is ending takes nothing; `receive` is where that shows."""
        self._stream.write_frame(rfc.TEXT, message)
        await self._stream.drained()

    async def send_all(self, messages: Sequence[bytes]) -> None:
        """Send text frames, in order; as `send`."""
        for message in messages:
            await self.send(message)

    async def send_frame(self, frame: bytes) -> None:
        """Send one binary frame; as `send`."""
        self._stream.write_frame(rfc.BINARY, frame)
        await self._stream.drained()

    async def close(self) -> None:
        """Say goodbye, so that the server keeps nothing for this client."""
        if self._over is None:
            self._stream.write_frame(rfc.CLOSE, rfc.pack_close(rfc.NORMAL))
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                while True:
                    await self.receive()
        except (LinkClosed, ProtocolViolation, TimeoutError):
            self._over = self._over or LinkClosed(None)
        finally:
            self._stream.abort()

    async def _first(self) -> Received | ProtocolViolation | None:
        """The first message, or what is wrong with it; None: the connection was closed."""
        try:
            return await self.receive()
        except LinkClosed:
            return None
        except ProtocolViolation as error:
            return error

    async def _more(self) -> None:
        if data := await self._stream.read():
            self._inbound.feed(data)
        else:
            self._over = LinkClosed(None)

    def _end(self, code: int | None) -> None:
        """The server's goodbye is answered (RFC 6455, 5.5.1), or it is told why it is left."""
        self._over = LinkClosed(rfc.NORMAL if code is None else code)
        self._stream.end(code)


async def _connect(stream: Stream, address: Address, ssl_option: SslOption) -> None:
    tls = dial.context(ssl_option) if address.secure else None
    await asyncio.get_running_loop().create_connection(
        lambda: stream,
        address.host,
        address.port,
        ssl=tls,
        server_hostname=dial.certified_name(address) if tls else None,
        ssl_shutdown_timeout=CLOSE_TIMEOUT_S if tls else None,
        happy_eyeballs_delay=NEXT_ADDRESS_S,
    )


async def _shake_hands(stream: Stream, opening: Opening) -> None:
    stream.write(opening.request)
    opened = False
    while not opened:
        if not (data := await stream.read()):
            raise opening.ended()
        opened = opening.feed(data)
