"""A small epoll loop with timers and signals. Knows descriptors and callbacks, nothing of processes."""

from __future__ import annotations

import heapq
import os
import select
import signal
import time
from collections.abc import Callable

EPOLLIN = select.EPOLLIN
EPOLLOUT = select.EPOLLOUT


class Timer:
    """A callback that will run once, unless it is cancelled."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when


class Loop:
    """Runs callbacks for readable descriptors, due timers and signals, in one thread, until `stop`."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._unwatched: set[int] = set()
        self._timers: list[Timer] = []
        self._signals: dict[int, Callable[[], None]] = {}
        self._running = False
        self._signal_reader, self._signal_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.watch(self._signal_reader, self._on_signal)

    def watch(self, fd: int, callback: Callable[[], None], events: int = EPOLLIN) -> None:
        """Call back while `fd` is ready (level-triggered; hang-up and error count as ready)."""
        if fd in self._handlers:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._handlers[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Forget `fd`; must come before it is closed. Unknown descriptors are ignored."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)
            self._unwatched.add(fd)

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(time.monotonic() + seconds, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def on_signal(self, number: int, callback: Callable[[], None]) -> None:
        """Call back inside the loop for a signal. Only in the main thread."""
        self._signals[number] = callback
        signal.set_wakeup_fd(self._signal_writer, warn_on_full_buffer=False)
        signal.signal(number, lambda _number, _frame: None)

    def stop(self) -> None:
        self._running = False

    def run(self) -> None:
        self._running = True
        handlers, unwatched, poll = self._handlers, self._unwatched, self._epoll.poll
        while self._running:
            # An event of a descriptor that was closed in this turn is not for the one that took its number.
            unwatched.clear()
            for fd, _events in poll(self._timeout()):
                handler = handlers.get(fd)
                if handler is not None and fd not in unwatched:
                    handler()
            if self._timers:
                self._run_timers()

    def close(self) -> None:
        self._epoll.close()
        os.close(self._signal_reader)
        os.close(self._signal_writer)

    def _timeout(self) -> float:
        while self._timers and self._timers[0].callback is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return -1
        return max(0.0, self._timers[0].when - time.monotonic())

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0].when <= now:
            callback = heapq.heappop(self._timers).callback
            if callback is not None:
                callback()

    def _on_signal(self) -> None:
        for number in set(os.read(self._signal_reader, 4096)):
            callback = self._signals.get(number)
            if callback is not None:
                callback()
