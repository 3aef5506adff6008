"""The bytes of one connection on the event loop: what was received, backpressure both ways, the heartbeat.

Knows transports and frames; not what messages mean.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque

from mhnos_runtime.wire import websocket as rfc

#: Bytes that were received and not taken: above, the next ones wait in the network.
HIGH_WATER_BYTES = 1024 * 1024
LOW_WATER_BYTES = HIGH_WATER_BYTES // 2


class Stream(asyncio.Protocol):
    """One connection, whose reader is one task at a time. Without one, what is written goes nowhere."""

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._chunks: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._reading = True
        self._writable = True
        self._lost = False
        self._ending = False
        # Set when there is something to look at: bytes, the end of the connection, or room for what is sent
        self._arrived = asyncio.Event()
        self._drained = asyncio.Event()
        self._heard = 0.0
        self._heartbeat: asyncio.TimerHandle | None = None
        self._heartbeat_s = 0.0

    async def read(self) -> bytes:
        """The next bytes; b"" at the end of the connection."""
        while not self._chunks:
            if self._lost:
                return b""
            self._arrived.clear()
            await self._arrived.wait()
        data = self._chunks.popleft()
        self._waiting_bytes -= len(data)
        if not self._reading and self._waiting_bytes <= LOW_WATER_BYTES and not self._lost:
            self._reading = True
            self._transport.resume_reading()
        return data

    def write(self, data: bytes) -> None:
        """Send bytes. A connection that has ended takes nothing."""
        if not self._lost and not self._ending:
            self._transport.write(data)

    def write_frame(self, opcode: int, payload: rfc.Payload) -> None:
        """Send one message, or one control frame; as `write`."""
        self.write(rfc.pack_masked(opcode, payload, os.urandom(rfc.MASK_BYTES)))

    def answer_ping(self, payload: bytes) -> None:
        """Only while the server takes what is sent: it would not read the answer, and pings without end must
        fill no memory. A later ping is answered in the place of this one (RFC 6455, 5.5.3)."""
        if self._writable:
            self.write_frame(rfc.PONG, payload)

    async def drained(self) -> None:
        """Until the server has taken what was sent, but for what the transport may hold; or the end of the
        connection."""
        while not (self._writable or self._lost):
            self._drained.clear()
            await self._drained.wait()

    def end(self, code: int | None) -> None:
        """Say goodbye, unless that was said, and end the connection once that is sent."""
        self.write_frame(rfc.CLOSE, b"" if code is None else rfc.pack_close(code))
        if not self._lost:
            self._ending = True
            self._transport.close()

    def abort(self) -> None:
        """End the connection at once; what waits to be sent is lost."""
        if not self._lost and hasattr(self, "_transport"):
            self._transport.abort()

    def start_heartbeat(self, every_s: float) -> None:
        """Ask a server that has been silent for so long whether it is there; after half as long again, it is
        gone."""
        self._heartbeat_s = every_s
        self._heard = self._loop.time()
        self._heartbeat = self._loop.call_later(every_s / 2, self._beat)

    def _beat(self) -> None:
        if not self._reading:
            # It is this side that does not listen.
            self._heard = self._loop.time()
        silent_s = self._loop.time() - self._heard
        if silent_s >= 1.5 * self._heartbeat_s:
            self._transport.abort()
            return
        if silent_s >= self._heartbeat_s:
            self.write_frame(rfc.PING, b"")
        self._heartbeat = self._loop.call_later(self._heartbeat_s / 2, self._beat)

    # What the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        self._chunks.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes > HIGH_WATER_BYTES and self._reading:
            self._reading = False
            self._transport.pause_reading()
        self._arrived.set()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._drained.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._lost = True
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        self._arrived.set()
        self._drained.set()
