"""Everything that one connection sends, in order and at the pace of its reader. Knows frames, not
requests."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from aiohttp import ClientConnectionResetError, WSMsgType, web

from mhnos_runtime.server.viewer import Frame, Viewer

#: Answers that wait for a client that does not read them. Above it, no more of its requests are read.
MAX_ANSWER_BYTES = 1 << 20
#: Sent in one go before other connections get their turn.
TURN_BYTES = 256 * 1024


class Sender:
    """Answers first, then one frame of each viewer in turn.

    Holds no output: what a slow client has not taken stays in the logs, apart from one frame and what the
    transport takes (64 KiB above its high-water mark). finished(viewer) is called when a viewer's exit is
    out.
    """

    def __init__(self, socket: web.WebSocketResponse[bool], finished: Callable[[Viewer], None]) -> None:
        self._socket = socket
        self._finished = finished
        self._answers: deque[bytes] = deque()
        self._answer_bytes = 0
        self._ready: deque[Viewer] = deque()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def answer(self, data: bytes) -> None:
        """Queue a text frame in front of all output."""
        self._answers.append(data)
        self._answer_bytes += len(data)
        if self._answer_bytes > MAX_ANSWER_BYTES:
            self._room.clear()
        self._wake.set()

    def ready(self, viewer: Viewer) -> None:
        """There is something to take from the viewer."""
        if not viewer.queued:
            viewer.queued = True
            self._ready.append(viewer)
            self._wake.set()

    async def room(self) -> None:
        """Wait until answers may be queued again."""
        await self._room.wait()

    async def run(self) -> None:
        """Send until the connection is closed."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                await self._send_all()
        except ClientConnectionResetError:
            return

    async def _send_all(self) -> None:
        sent = 0
        while True:
            frame = self._next()
            if frame is None:
                return
            await self._socket.send_frame(frame.data, WSMsgType.BINARY if frame.binary else WSMsgType.TEXT)
            sent += len(frame.data)
            if sent >= TURN_BYTES:
                sent = 0
                await asyncio.sleep(0)

    def _next(self) -> Frame | None:
        while True:
            if self._answers:
                return self._next_answer()
            if not self._ready:
                return None
            viewer = self._ready.popleft()
            frame = viewer.next_frame()
            if frame is not None:
                self._ready.append(viewer)
                if self._answers:
                    # `attached` came up on the way: it stands between what is replayed and what is not.
                    viewer.put_back(frame)
                    continue
                return frame
            viewer.queued = False
            if viewer.finished:
                self._finished(viewer)

    def _next_answer(self) -> Frame:
        data = self._answers.popleft()
        self._answer_bytes -= len(data)
        if self._answer_bytes <= MAX_ANSWER_BYTES:
            self._room.set()
        return Frame(data, False)
