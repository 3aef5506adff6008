"""One WebSocket after its handshake: messages in and frames out without a task between socket and handler.

The HTTP library does the handshake and its reader parses (RFC 6455); its receiving coroutines are left out,
since they cost more than everything else in an echo. Knows transports and frames, not what messages mean.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any, cast

from aiohttp._websocket.reader import WebSocketDataQueue
from aiohttp.http_websocket import WebSocketError, WebSocketReader, WSCloseCode, WSMessage, WSMsgType

#: Bytes that the transport may hold for a slow client; above, nothing more is taken from the logs.
HIGH_WATER_BYTES = 64 * 1024
#: How long a client may take to answer a ping, or a closing handshake.
CLOSE_SECONDS = 5.0

#: Below this, to copy costs less than to hand over two buffers.
_COPIED_BYTES = 4096

_FINAL = 0x80
_SHORT, _MEDIUM, _LONG = struct.Struct("!BB"), struct.Struct("!BBH"), struct.Struct("!BBQ")
_CODE = struct.Struct("!H")


class WebSocket(asyncio.Protocol):
    """The server's side of one connection.

    on_message(data, binary) is called for each message as it arrives, on_writable when the client has taken
    what was sent. `writable` is False while it has not. `closed` is done when the connection is gone;
    close_code is then the one that the client sent, or None when the connection just broke; `left` says
    whether it was the client that wanted to go.
    """

    on_message: Callable[[bytes, bool], None]
    on_writable: Callable[[], None]

    def __init__(
        self, transport: asyncio.Transport, max_message_bytes: int, heartbeat_seconds: float
    ) -> None:
        """Take the transport over from the protocol that did the handshake."""
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._former = transport.get_protocol()
        self._reader = WebSocketReader(_Queue(self), max_message_bytes, compress=False, decode_text=False)
        self._heartbeat_seconds = heartbeat_seconds
        self._heard = self._loop.time()
        self._closing = False
        self.writable = True
        self.close_code: int | None = None
        self.left = False
        self.closed: asyncio.Future[None] = self._loop.create_future()

    def start(self) -> None:
        """Begin to receive; the callbacks are set by now."""
        self._transport.set_protocol(self)
        self._transport.set_write_buffer_limits(HIGH_WATER_BYTES)
        self._heartbeat = self._loop.call_later(self._heartbeat_seconds, self._beat)

    def send(self, head: bytes, body: bytes, binary: bool) -> None:
        """Send one message, in two parts so that a large one is not copied together.

        What the kernel does not take waits in the transport: look at `writable`.
        """
        if not self._closing:
            self._write(WSMsgType.BINARY if binary else WSMsgType.TEXT, head, body)

    def close(self, code: int) -> None:
        """Say goodbye and end the connection, at the latest after CLOSE_SECONDS."""
        if self._closing:
            return
        self._write(WSMsgType.CLOSE, _CODE.pack(code))
        self._closing = True
        self._loop.call_later(CLOSE_SECONDS, self._transport.abort)

    def abort(self) -> None:
        """End the connection at once; what waits to be sent is lost."""
        self._transport.abort()

    def pause_reading(self) -> None:
        """Let the client wait: it has asked for more than can be done at once."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _write(self, opcode: int, head: bytes, body: bytes = b"") -> None:
        size = len(head) + len(body)
        if size < 126:
            header = _SHORT.pack(_FINAL | opcode, size)
        elif size < 1 << 16:
            header = _MEDIUM.pack(_FINAL | opcode, 126, size)
        else:
            header = _LONG.pack(_FINAL | opcode, 127, size)
        if len(body) < _COPIED_BYTES:
            self._transport.write(header + head + body)
        else:
            self._transport.writelines((header + head, body))

    # What the reader found

    def take(self, message: WSMessage) -> None:
        """Called by the reader, which would swallow an exception: nothing that is called here raises one."""
        kind = message.type
        if kind is WSMsgType.BINARY or kind is WSMsgType.TEXT:
            if not self._closing:
                self.on_message(message.data, kind is WSMsgType.BINARY)
        elif kind is WSMsgType.PING:
            # Who takes nothing gets no answers to keep for it; RFC 6455, 5.5.3 has the latest ping answered.
            if self.writable:
                self._write(WSMsgType.PONG, message.data)
        elif kind is WSMsgType.CLOSE:
            self._said_goodbye(message.data)

    def _said_goodbye(self, code: int) -> None:
        """RFC 6455, 5.5.1 and 7.1.1: answer a close with a close; then the server closes the connection."""
        self.close_code = code or WSCloseCode.OK
        if not self._closing:
            self.left = True
            self._write(WSMsgType.CLOSE, _CODE.pack(self.close_code))
            self._closing = True
        self._transport.close()

    def fail(self, error: BaseException) -> None:
        """The client broke the protocol."""
        self.close(error.code if isinstance(error, WebSocketError) else WSCloseCode.PROTOCOL_ERROR)

    # What the transport says

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        self._reader.feed_data(data)

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self.on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._heartbeat.cancel()
        cast(asyncio.Protocol, self._former).connection_lost(exc)
        if not self.closed.done():
            self.closed.set_result(None)

    def _beat(self) -> None:
        """Ask a silent client whether it is there; end the connection when it does not answer in time."""
        if not self._transport.is_reading():
            # It is this side that does not listen.
            self._heard = self._loop.time()
        silent = self._loop.time() - self._heard
        if silent >= 2 * self._heartbeat_seconds:
            self._transport.abort()
            return
        if silent >= self._heartbeat_seconds and not self._closing:
            self._write(WSMsgType.PING, b"")
        self._heartbeat = self._loop.call_later(self._heartbeat_seconds / 2, self._beat)


class _Queue(WebSocketDataQueue):
    """Where the reader puts messages: straight into the hands of the connection."""

    def __init__(self, socket: WebSocket) -> None:
        # What the base class would do with them, pausing and waking, is done by the connection.
        super().__init__(cast(Any, socket), HIGH_WATER_BYTES, loop=asyncio.get_running_loop())
        self._socket = socket

    def feed_data(self, data: Any, size: int) -> None:
        del size
        self._socket.take(data)

    def set_exception(self, exc: BaseException, exc_cause: object = None) -> None:
        del exc_cause
        self._socket.fail(exc)
