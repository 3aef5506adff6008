"""Events of processes for all who subscribe: one bounded log, which each client reads at its own pace.

Knows messages; not the socket, and not what made something happen.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from mhnos_runtime.process.table import Process
from mhnos_runtime.server.connections.shown import listed
from mhnos_runtime.server.connections.turns import Turns
from mhnos_runtime.server.processes.news import Happening
from mhnos_runtime.wire import encode
from mhnos_runtime.wire import messages as m

#: Bytes of events kept for slow clients, some 2,000 events. What is older they miss, and are told how many.
KEPT_BYTES = 1 << 20


class Event(NamedTuple):
    """number: from 0 on, of this log. data: the message."""

    number: int
    pid: int
    data: bytes


class EventLog:
    """The newest events. A client's position in it costs a few bytes, however slow the client is."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._events: deque[Event] = deque()
        self._bytes = 0
        self._next = 0
        self._subscriptions: dict[Subscription, None] = {}

    def tell(self, what: Happening, process: Process, time_ms: int) -> None:
        """Something has happened. The clients are served in turns, since there may be a thousand."""
        if not self._subscriptions:
            return
        data = encode.encode(m.ProcessEvent(what, time_ms, listed(process)))
        self._events.append(Event(self._next, process.pid, data))
        self._next += 1
        self._bytes += len(data)
        while self._bytes > KEPT_BYTES:
            self._bytes -= len(self._events.popleft().data)
        for each in self._subscriptions:
            each.happened(process.pid)

    def subscription(self, sees: Callable[[int], bool], wake: Callable[[], None]) -> Subscription:
        """A client's own, which is told nothing before `begin`. sees: the pids that there are for it. wake:
        called when it has something."""
        return Subscription(self, sees, wake)

    def later(self, act: Callable[[], None]) -> None:
        self._turns.later(act)

    def enter(self, subscription: Subscription) -> int:
        """It is told from now on; returns the number of the next event."""
        self._subscriptions[subscription] = None
        return self._next

    def leave(self, subscription: Subscription) -> None:
        self._subscriptions.pop(subscription, None)
        if not self._subscriptions:
            self._events.clear()
            self._bytes = 0

    @property
    def oldest(self) -> int:
        """The number of the oldest event that is kept."""
        return self._next - len(self._events)

    def get(self, number: int) -> Event:
        """An event that is kept."""
        return self._events[number - self.oldest]

    def count(self, sees: Callable[[int], bool]) -> int:
        """How many of those that are kept somebody sees."""
        return sum(sees(event.pid) for event in self._events)


class Subscription:
    """What one client has still to be told: a position in the log."""

    def __init__(self, log: EventLog, sees: Callable[[int], bool], wake: Callable[[], None]) -> None:
        self._log = log
        self._sees = sees
        self._wake = wake
        self._number = 0
        self._on = False
        self._scheduled = False
        #: Events for this client that it has not been handed.
        self._pending = 0

    def begin(self) -> None:
        """Tell everything that happens from now on. A second time changes nothing."""
        if not self._on:
            self._on = True
            self._number = self._log.enter(self)

    def end(self) -> None:
        """Tell nothing any more."""
        self._log.leave(self)
        self._on, self._pending = False, 0

    def happened(self, pid: int) -> None:
        if self._sees(pid):
            self._pending += 1
            if not self._scheduled:
                self._scheduled = True
                self._log.later(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        self._wake()

    def __bool__(self) -> bool:
        """Whether there is something to be told."""
        return self._pending > 0

    def next(self) -> bytes | None:
        """The next message for the client, or None."""
        while self._pending:
            if self._number < self._log.oldest and (missed := self._skip()):
                return missed
            event = self._log.get(self._number)
            self._number += 1
            if self._sees(event.pid):
                self._pending -= 1
                return event.data
        return None

    def _skip(self) -> bytes | None:
        """Go on with the oldest event that is kept. What to say of those before it, if any was for this
        client."""
        before, self._pending = self._pending, self._log.count(self._sees)
        self._number = self._log.oldest
        if before == self._pending:
            return None
        now_ms = time.time_ns() // 1_000_000
        return encode.encode(m.ProcessEvent("missed", now_ms, count=before - self._pending))
