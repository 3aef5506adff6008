"""Backpressure: which offset of an output log its writer must not overwrite, and so for whom a process waits.

Knows what each reader still needs; not who reads or how. Clock and notification are handed in: no event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Protocol

from mhnos_runtime.output.layout import NO_HOLD

#: What a reader that was passed by must read before it is waited for again. One that takes less in each stall
#: time would hold the process up for ever, at the price of a byte each time.
RETURN_BYTES = 64 * 1024


class Log(Protocol):
    """What of an output log matters here; see LogReader."""

    @property
    def head(self) -> int: ...

    @property
    def tail(self) -> int: ...

    @property
    def hold(self) -> int: ...

    def set_hold(self, offset: int, /) -> bool: ...


class Timer(Protocol):
    def cancel(self) -> object: ...


#: Calls something once, after so many seconds, unless it is cancelled before: a loop's call_later.
Later = Callable[[float, Callable[[], None]], Timer]


class Hold:
    """One reader's hold on a log: the writer is to keep everything from `offset` on.

    Made by `Holds.enter`, and ended by `leave`. passed_at: None, or from where the reader has to show that it
    reads, since the writer has passed it by. came_to: the hold that was nearest when this one was made, and
    its offset then.
    """

    __slots__ = ("_holds", "came_to", "offset", "passed_at")

    def __init__(self, holds: Holds, offset: int) -> None:
        self._holds = holds
        self.offset = offset
        self.passed_at: int | None = None
        self.came_to: tuple[Hold, int] | None = None

    def move(self, offset: int) -> None:
        """The reader needs nothing below `offset` any more. A hold never moves back."""
        self._holds.move(self, offset)

    def skip(self, offset: int) -> None:
        """As `move`, over bytes that were overrun. To be told of that is not reading."""
        if self.passed_at is not None:
            self.passed_at = offset
        self._holds.move(self, offset)

    def leave(self, vanished: bool = False) -> None:
        """End the hold: at once after a goodbye. vanished: the reader may come back for what it missed."""
        self._holds.leave(self, vanished)


class Holds:
    """The holds of all readers of one log, of which the writer sees the lowest one that counts.

    A hold counts unless
    - it was overtaken: it is below the tail, so that its reader will find an overrun;
    - it was passed by: the writer, which keeps the time of a stall (supervisor/capture.py), has given up the
      byte at the hold. It counts again once its reader has read RETURN_BYTES, or all there is.

    A reader that says goodbye takes its hold with it. The hold of one that vanished is kept for the stall
    time and then lapses. Whoever enters takes over the nearest hold that is kept, since it is most likely the
    same client: in front of the hold if it acknowledged what it had used, behind it if what was sent got lost
    on the way. Where it enters before its old connection is known to be gone, nothing is kept when that goes.
    """

    def __init__(self, log: Log, stall_seconds: float, later: Later, notify: Callable[[], None]) -> None:
        """notify is called when the lowest hold has moved while the writer was blocked by it.

        What the log is held at by now is kept: for whoever asked for the process, or read it under the last
        server.
        """
        self._log = log
        self._stall_seconds = stall_seconds
        self._later = later
        self._notify = notify
        self._readers: dict[Hold, None] = {}
        self._kept: dict[Hold, Timer] = {}
        if log.hold != NO_HOLD:
            self._keep(Hold(self, log.hold))

    def close(self) -> None:
        """To be called before the log is closed. What the log is held at stays, for the next server."""
        for timer in self._kept.values():
            timer.cancel()
        self._kept.clear()

    def enter(self, offset: int) -> Hold:
        """Somebody begins to read at `offset`."""
        self.look()
        hold = Hold(self, offset)
        nearest = min(self._kept or self._readers, key=lambda each: abs(each.offset - offset), default=None)
        if nearest in self._kept:
            self._kept.pop(nearest).cancel()
        elif nearest is not None:
            hold.came_to = nearest, nearest.offset
        self._readers[hold] = None
        self._settle()
        return hold

    def move(self, hold: Hold, offset: int) -> None:
        """See Hold.move."""
        self.look()
        before, hold.offset = hold.offset, max(hold.offset, offset)
        if hold.passed_at is not None and hold.offset >= min(hold.passed_at + RETURN_BYTES, self._log.head):
            hold.passed_at = None
        # Unless it was the lowest one, the writer waits for the same as before.
        if before <= self._log.hold:
            self._settle()

    def leave(self, hold: Hold, vanished: bool) -> None:
        """See Hold.leave."""
        if hold not in self._readers:
            return
        self.look()
        del self._readers[hold]
        hold.came_to = None
        came_back = any(other.came_to == (hold, hold.offset) for other in self._readers)
        if vanished and not came_back:
            # What kept it from reading may have been the network that is gone now.
            hold.passed_at = None
            self._keep(hold)
        self._settle()

    def look(self) -> None:
        """See whether the writer has passed by whoever held it, and have it wait for the others."""
        held, tail = self._log.hold, self._log.tail
        if held >= tail:
            return
        for hold in chain(self._readers, self._kept):
            if hold.offset == held:
                hold.passed_at = tail
        self._settle()

    def _keep(self, hold: Hold) -> None:
        self._kept[hold] = self._later(self._stall_seconds, lambda: self._lapse(hold))

    def _lapse(self, hold: Hold) -> None:
        self.look()
        del self._kept[hold]
        self._settle()

    def _settle(self) -> None:
        """Have the writer wait for the lowest hold that counts."""
        tail = self._log.tail
        # A list and no generator: readers are few, and each frame that is sent comes by here.
        counting = [
            hold.offset
            for hold in chain(self._readers, self._kept)
            if hold.passed_at is None and hold.offset >= tail
        ]
        offset = min(counting, default=NO_HOLD)
        if offset != self._log.hold and self._log.set_hold(offset):
            self._notify()
