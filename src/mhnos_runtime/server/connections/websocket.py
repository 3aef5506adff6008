"""One WebSocket after its handshake: messages in and frames out without a task between socket and receiver.

Knows transports and frames (wire/websocket.py), not what messages mean.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol, cast

# Private, and without a public substitute: Python alone takes 50 times as long, 67 us a read of
# 64 KiB. The range of aiohttp in pyproject.toml ends behind the newest version that was tested;
# tests/server/connections/test_websocket.py says what is expected of it.
from aiohttp._websocket.helpers import websocket_mask

from mhnos_runtime.wire import websocket as rfc
from mhnos_runtime.wire.websocket import Incoming, Parser, Payload, Violation

#: Bytes that the transport may hold for a slow client; above, nothing more is taken from the logs.
HIGH_WATER_BYTES = 64 * 1024
#: How long a client may take to answer a ping, or a closing handshake.
CLOSE_SECONDS = 5.0
#: How long a client that broke the protocol has to read why, before the end of the connection: some that are
#: behind find the end first, and report a connection that just broke (1006).
REASON_SECONDS = 1.0
#: How long the messages of one connection keep the event loop from the others: one read of the socket may
#: hold forty thousand.
TURN_SECONDS = 0.002

#: Below this, to copy costs less than to hand over two buffers.
_COPIED_BYTES = 4096


class Receiver(Protocol):
    """Who takes what one WebSocket receives. No method raises."""

    def on_message(self, data: Payload, binary: bool, /) -> None:
        """A message of at most 1 MiB and a header, whole."""

    def limit(self, binary: bool, head: bytes, /) -> int:
        """How many bytes a larger message may have, asked once for each, with its first 4096 bytes."""

    def on_part(self, data: Payload, last: bool, /) -> None:
        """A part of a larger message, of one read of the socket at most."""

    def on_writable(self) -> None:
        """The client has taken what was sent."""


class WebSocket(asyncio.Protocol):
    """The server's side of one connection.

    `writable` is False while the client has not taken what was sent. `closed` is done when the connection is
    gone; close_code is then the one that the client sent, or None when the connection just broke; `left` says
    whether it was the client that said goodbye first.
    """

    _receiver: Receiver

    def __init__(
        self, transport: asyncio.Transport, max_message_bytes: int, heartbeat_seconds: float
    ) -> None:
        """Take the transport over from the protocol that did the handshake."""
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._former = transport.get_protocol()
        self._parser = Parser(websocket_mask, self._limit, max_message_bytes)
        self._heartbeat_seconds = heartbeat_seconds
        self._heard = self._loop.time()
        self._closing = False
        # Whether nothing more is parsed, since the client broke the protocol
        self._failed = False
        # Why messages wait: the receiver has enough, or the other connections have their turn
        self._held = False
        self._yielded = False
        self._working = False
        self._reading = True
        self.writable = True
        self.close_code: int | None = None
        self.left = False
        self.closed: asyncio.Future[None] = self._loop.create_future()

    def start(self, receiver: Receiver) -> None:
        """Begin to receive."""
        self._receiver = receiver
        self._transport.set_protocol(self)
        self._transport.set_write_buffer_limits(HIGH_WATER_BYTES)
        self._heartbeat = self._loop.call_later(self._heartbeat_seconds, self._beat)

    def send(self, head: bytes, body: bytes, binary: bool, *, first: bool = True, last: bool = True) -> None:
        """Send one message, or one fragment of it (RFC 6455, 5.4): no other message may come in between.

        In two pieces, so that a large one is not copied together. What the kernel does not take waits in the
        transport: look at `writable`.
        """
        if not self._closing:
            opcode = rfc.BINARY if binary else rfc.TEXT
            self._write(opcode if first else rfc.CONTINUATION, head, body, final=last)

    def close(self, code: int) -> None:
        """Say goodbye and end the connection, at the latest after CLOSE_SECONDS."""
        if self._closing:
            return
        self._write(rfc.CLOSE, rfc.pack_close(code))
        self._closing = True
        # The client's close frame is waited for behind what it has sent before.
        self.resume_reading()
        self._loop.call_later(CLOSE_SECONDS, self._transport.abort)

    def abort(self) -> None:
        """End the connection at once; what waits to be sent is lost."""
        self._transport.abort()

    def pause_reading(self) -> None:
        """Let the client wait: it has asked for more than can be done at once. No message comes until
        resume_reading; what has been received waits here, one read of the socket at most."""
        if not self._closing:
            self._held = True
            self._pace()

    def resume_reading(self) -> None:
        if self._held:
            self._held = False
            if not self._working:
                self._yield()

    def _limit(self, binary: bool, head: bytes) -> int:
        return self._receiver.limit(binary, head)

    def _write(self, opcode: int, head: Payload, body: bytes = b"", *, final: bool = True) -> None:
        header = rfc.pack_header(opcode, len(head) + len(body), final=final)
        if len(body) < _COPIED_BYTES:
            self._transport.write(b"".join((header, head, body)))
        else:
            self._transport.writelines((header + head, body))

    # What was received

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        if self._failed:
            return
        self._parser.feed(data)
        if not self._yielded:
            self._work()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """What aiohttp received before start(), as it asks a parser of its own to take it."""
        self._parser.feed(data)
        self._yield()
        return False, b""

    def feed_eof(self) -> None:
        """The end of the connection, which connection_lost tells."""

    def _work(self) -> None:
        """Take what has been received, for one turn."""
        self._yielded, self._working = False, True
        until = time.monotonic() + TURN_SECONDS
        try:
            while not (self._held or self._failed) and (event := self._parser.next()) is not None:
                self._take(event)
                if time.monotonic() >= until:
                    self._yield()
                    break
        except Violation as violation:
            self._fail(violation.code)
        finally:
            self._working = False
        self._pace()

    def _yield(self) -> None:
        """Go on in the next turn of the event loop."""
        if not self._yielded:
            self._yielded = True
            self._loop.call_soon(self._work)

    def _pace(self) -> None:
        """While messages wait here, the next ones wait in the network."""
        reading = not (self._held or self._yielded)
        if reading != self._reading and not self._transport.is_closing():
            self._reading = reading
            if reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _take(self, event: Incoming) -> None:
        if event.opcode == rfc.PING:
            # Who takes nothing gets no answers to keep for it; RFC 6455, 5.5.3 has the latest ping answered.
            if self.writable and not self._closing:
                self._write(rfc.PONG, event.payload)
        elif event.opcode == rfc.CLOSE:
            self._said_goodbye(rfc.close_code(event.payload))
        elif event.opcode in (rfc.TEXT, rfc.BINARY) and not self._closing:
            if event.part:
                self._receiver.on_part(event.payload, event.last)
            else:
                self._receiver.on_message(event.payload, event.opcode == rfc.BINARY)

    def _said_goodbye(self, code: int | None) -> None:
        """RFC 6455, 5.5.1 and 7.1.1: answer a close with a close; then the server closes the connection."""
        self.close_code = rfc.NORMAL if code is None else code
        if not self._closing:
            self.left = True
            self._write(rfc.CLOSE, b"" if code is None else rfc.pack_close(code))
            self._closing = True
        self._transport.close()
        # It waits until all that was sent is taken.
        self._loop.call_later(CLOSE_SECONDS, self._transport.abort)

    def _fail(self, code: int) -> None:
        """The client broke the protocol (RFC 6455, 7.1.7). Nothing more is parsed, but what it still sends is
        read, since a connection that is closed with unread bytes is reset, and the client is not told why."""
        self._failed = True
        self.close(code)
        self._loop.call_later(REASON_SECONDS, self._end)

    def _end(self) -> None:
        if self._transport.is_closing():
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            # TLS: there is no half of a connection to end, and the end of both is read up to.
            self._transport.close()

    # What the transport says

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self._receiver.on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = self._failed = True
        self._heartbeat.cancel()
        cast(asyncio.Protocol, self._former).connection_lost(exc)
        if not self.closed.done():
            self.closed.set_result(None)

    def _beat(self) -> None:
        """Ask a silent client whether it is there; end the connection when it does not answer in time."""
        if not self._reading:
            # It is this side that does not listen.
            self._heard = self._loop.time()
        silent = self._loop.time() - self._heard
        if silent >= 2 * self._heartbeat_seconds:
            self._transport.abort()
            return
        if silent >= self._heartbeat_seconds and not self._closing:
            self._write(rfc.PING, b"")
        self._heartbeat = self._loop.call_later(self._heartbeat_seconds / 2, self._beat)
