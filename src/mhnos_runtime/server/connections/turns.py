"""Large output of all connections, round-robin, so that small output never waits for much of it. Knows the
event loop only."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

#: How long large output keeps the event loop from everything else. Undisturbed that is some ten frames; where
#: CPUs are short it is few, since each frame wakes a reader that may run before the next one is sent.
TURN_SECONDS = 0.0005


class Turns:
    """Whoever waits is called in order, for TURN_SECONDS in each turn of the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Callable[[], None]] = deque()
        self._scheduled = False

    def __bool__(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiting)

    def later(self, send: Callable[[], None]) -> None:
        """Call `send` when it is its turn, once; it sends a frame and may ask for another turn."""
        self._waiting.append(send)
        self._schedule()

    def _schedule(self) -> None:
        if self._waiting and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._scheduled = False
        until = time.monotonic() + TURN_SECONDS
        try:
            while self._waiting:
                self._waiting.popleft()()
                if time.monotonic() >= until:
                    break
        finally:
            self._schedule()
