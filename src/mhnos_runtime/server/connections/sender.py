"""Everything that one connection sends, in order and at the pace of its reader. Knows frames, not
requests."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from mhnos_runtime.server.connections.turns import Turns
from mhnos_runtime.server.connections.viewer import Frame, Viewer, text_frame
from mhnos_runtime.server.connections.websocket import WebSocket

#: Answers that wait for a client that does not read them. Above it, no more of its requests are read.
MAX_ANSWER_BYTES = 1 << 20
#: Sent in one go before other connections get their turn.
TURN_BYTES = 64 * 1024
#: A viewer that lags by so much waits for its turn. The echo of what people type is less.
LARGE_BYTES = 4096


class Events(Protocol):
    """Messages that wait for this client elsewhere; true as long as there are some."""

    def __bool__(self) -> bool: ...

    def next(self) -> bytes | None: ...


class Sender:
    """Sends answers first, then events, then what viewers have that lag by less than LARGE_BYTES, at once; of
    the others, one frame each, round-robin, when it is this connection's turn. Nothing while the client does
    not read.

    Buffers no output: what a slow client has not taken stays in the logs, apart from one frame and what the
    transport takes. finished(viewer) is called when a viewer's exit is out, on_room when it is not `full` any
    more.
    """

    def __init__(
        self,
        socket: WebSocket,
        turns: Turns,
        events: Sequence[Events],
        finished: Callable[[Viewer], None],
        on_room: Callable[[], None],
    ) -> None:
        self._socket = socket
        self._turns = turns
        self._events = events
        self._finished = finished
        self._on_room = on_room
        self._answers: deque[bytes] = deque()
        self._parts: deque[tuple[bytes, bool]] = deque()
        self._open = False
        self._parts_taken = asyncio.Event()
        self._answer_bytes = 0
        self._small: deque[Viewer] = deque()
        self._large: deque[Viewer] = deque()
        self._sending = False
        self._waiting = False

    @property
    def full(self) -> bool:
        """Whether enough answers wait."""
        return self._answer_bytes > MAX_ANSWER_BYTES

    def answer(self, data: bytes) -> None:
        """Send a text frame in front of all output."""
        self._answers.append(data)
        self._answer_bytes += len(data)
        self.flush()

    async def part(self, data: bytes, last: bool) -> None:
        """Send a piece of a text message behind all answers; return when the client has taken it, or most of
        it. Up to the last piece nothing else is sent (RFC 6455, 5.4: fragments)."""
        self._parts_taken.clear()
        self._parts.append((data, last))
        self.flush()
        await self._parts_taken.wait()

    def ready(self, viewer: Viewer) -> None:
        """There is something to take from the viewer."""
        if not viewer.queued:
            viewer.queued = True
            self._queue(viewer)
            self.flush()

    def flush(self) -> None:
        """Send now what does not have to wait for a turn."""
        if not self._sending:
            self._send(large=False)

    def _turn(self) -> None:
        self._waiting = False
        self._send(large=True)

    def _send(self, large: bool) -> None:
        sent, self._sending = 0, True
        try:
            while self._socket.writable and sent < TURN_BYTES:
                if self._parts and (self._open or not self._answers):
                    sent += self._send_part()
                    continue
                frame = None if self._open else self._next(large)
                if frame is None:
                    break
                self._socket.send(frame.head, frame.body, frame.binary)
                sent += len(frame.head) + len(frame.body)
        finally:
            self._sending = False
        more = self._parts or (
            not self._open and (self._answers or any(self._events) or self._small or self._large)
        )
        if self._socket.writable and not self._waiting and more:
            self._waiting = True
            self._turns.later(self._turn)

    def _send_part(self) -> int:
        data, last = self._parts.popleft()
        self._socket.send(data, b"", False, first=not self._open, last=last)
        self._open = not last
        if not self._parts:
            self._parts_taken.set()
        return len(data)

    def _queue(self, viewer: Viewer) -> None:
        (self._large if viewer.lag >= LARGE_BYTES else self._small).append(viewer)

    def _next(self, large: bool) -> Frame | None:
        while True:
            if self._answers:
                return self._next_answer()
            if (event := self._next_event()) is not None:
                return text_frame(event)
            if self._small:
                viewer = self._small.popleft()
            elif large and self._large:
                viewer = self._large.popleft()
            else:
                return None
            frame = viewer.next_frame()
            if frame is not None:
                self._queue(viewer)
                if self._answers:
                    # `attached` came up on the way: it stands between what is replayed and what is not.
                    viewer.put_back(frame)
                    continue
                return frame
            viewer.queued = False
            if viewer.finished:
                self._finished(viewer)

    def _next_event(self) -> bytes | None:
        return next((event for each in self._events if (event := each.next()) is not None), None)

    def _next_answer(self) -> Frame:
        data = self._answers.popleft()
        was_full = self.full
        self._answer_bytes -= len(data)
        if was_full and not self.full:
            self._on_room()
        return text_frame(data)
