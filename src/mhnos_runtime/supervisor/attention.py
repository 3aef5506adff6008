"""Which terminals somebody types into at the moment. Knows their numbers only."""

from __future__ import annotations

import time

from mhnos_runtime.supervisor.loop import Loop

#: How long after a key bulk is held back. People type faster than that; between two commands there is more.
TYPING_SECONDS = 0.3


class Attention:
    """Holds bulk back while somebody types, other than what that brings forth."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._last = 0
        self._until = 0.0
        self._others_until = 0.0

    def typed(self, pid: int) -> None:
        """Somebody types into this one."""
        if pid != self._last:
            self._last, self._others_until = pid, self._until
        self._until = time.monotonic() + TYPING_SECONDS
        self._loop.hold_back(TYPING_SECONDS)

    def only(self, pid: int) -> bool:
        """Whether somebody types into this one, and nobody into another."""
        return pid == self._last and self._others_until <= time.monotonic() < self._until
