"""The order of floods: round-robin, after everything that is not a flood, and not while an answer is awaited.

Knows descriptors by number and processes by pid; not what is read, nor who types.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable

#: A source that gives this much in one turn is a flood: a full read of a PTY.
FLOOD_BYTES = 4096

#: The longest pause after a key. A key each 100 ms into a program that never answers takes a tenth of their
#: time from the floods.
PAUSE_SECONDS = 0.01

#: After a pause floods run for this many times its length: whatever is typed, they keep four fifths of the
#: time.
SHARE = 4


class Floods:
    """Flooding descriptors sit in an epoll of their own inside the loop's, so that the loop can skip them."""

    def __init__(
        self,
        outer: select.epoll,
        after: Callable[[float, Callable[[], None]], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """outer: the loop's epoll. after: calls something once, so many seconds later."""
        self._outer = outer
        self._after = after
        self._clock = clock
        self._epoll = select.epoll()
        self._members: set[int] = set()
        self._awaited: set[int] = set()
        self._began = 0.0
        self._next_pause = 0.0
        #: Ready in the outer epoll when a flood is ready and there is no pause.
        self.fd = self._epoll.fileno()
        outer.register(self.fd, select.EPOLLIN)

    def set(self, fd: int, flooding: bool) -> None:
        """Serve `fd`, which is watched for input, as a flood or like everything else."""
        if flooding and fd not in self._members:
            self._outer.unregister(fd)
            self._epoll.register(fd, select.EPOLLIN)
            self._members.add(fd)
        elif not flooding and fd in self._members:
            self._members.remove(fd)
            self._epoll.unregister(fd)
            self._outer.register(fd, select.EPOLLIN)

    def next(self) -> int | None:
        """The flood whose turn it is. The kernel keeps the round-robin order: epoll_wait(2) with room for one
        event goes through all that are ready."""
        ready = [] if self._awaited else self._epoll.poll(0, 1)
        return ready[0][0] if ready else None

    def pause(self, pid: int) -> None:
        """Skip floods until this process has answered. A pause begins with the first key and ends with the
        last answer, or after PAUSE_SECONDS."""
        if self._awaited:
            self._awaited.add(pid)
        elif self._clock() >= self._next_pause:
            self._awaited.add(pid)
            self._began = began = self._clock()
            self._outer.modify(self.fd, 0)
            self._after(PAUSE_SECONDS, lambda: self._lapse(began))

    def answered(self, pid: int) -> None:
        """Output of this process is in its log."""
        if pid in self._awaited:
            self._awaited.remove(pid)
            if not self._awaited:
                self._resume()

    def _lapse(self, began: float) -> None:
        """End the pause that began then, if it has not ended yet."""
        if self._awaited and self._began == began:
            self._awaited.clear()
            self._resume()

    def _resume(self) -> None:
        now = self._clock()
        self._next_pause = now + SHARE * (now - self._began)
        self._outer.modify(self.fd, select.EPOLLIN)

    def close(self) -> None:
        self._epoll.close()
