"""Everything that one connection sends, in order and at the pace of its reader. Knows frames, not
requests."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from mhnos_runtime.server.viewer import Frame, Viewer, text_frame
from mhnos_runtime.server.websocket import WebSocket

#: Answers that wait for a client that does not read them. Above it, no more of its requests are read.
MAX_ANSWER_BYTES = 1 << 20
#: Sent in one go before other connections get their turn.
TURN_BYTES = 256 * 1024


class Sender:
    """Answers first, then one frame of each viewer in turn, at once where the client takes them.

    Holds no output: what a slow client has not taken stays in the logs, apart from one frame and what the
    transport takes. finished(viewer) is called when a viewer's exit is out, on_room when it is not `full` any
    more.
    """

    def __init__(
        self, socket: WebSocket, finished: Callable[[Viewer], None], on_room: Callable[[], None]
    ) -> None:
        self._socket = socket
        self._finished = finished
        self._on_room = on_room
        self._answers: deque[bytes] = deque()
        self._answer_bytes = 0
        self._ready: deque[Viewer] = deque()
        self._busy = False
        socket.on_writable = self.flush

    @property
    def full(self) -> bool:
        """Whether enough answers wait."""
        return self._answer_bytes > MAX_ANSWER_BYTES

    def answer(self, data: bytes) -> None:
        """Send a text frame in front of all output."""
        self._answers.append(data)
        self._answer_bytes += len(data)
        self.flush()

    def ready(self, viewer: Viewer) -> None:
        """There is something to take from the viewer."""
        if not viewer.queued:
            viewer.queued = True
            self._ready.append(viewer)
            self.flush()

    def flush(self) -> None:
        """Send what the client takes, for one turn; come back when it has taken it."""
        if self._busy:
            return
        self._busy = True
        if self._send_turn():
            asyncio.get_running_loop().call_soon(self._next_turn)
        else:
            self._busy = False

    def _next_turn(self) -> None:
        self._busy = False
        self.flush()

    def _send_turn(self) -> bool:
        """True when the turn is over and there may be more."""
        sent = 0
        while self._socket.writable:
            frame = self._next()
            if frame is None:
                return False
            self._socket.send(frame.head, frame.body, frame.binary)
            sent += len(frame.head) + len(frame.body)
            if sent >= TURN_BYTES:
                return True
        return False

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
        was_full = self.full
        self._answer_bytes -= len(data)
        if was_full and not self.full:
            self._on_room()
        return text_frame(data)
