"""A small epoll loop with timers and signals, which survives exceptions of callbacks. Knows descriptors and
callbacks, nothing of processes."""

from __future__ import annotations

import contextlib
import heapq
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Protocol, TypeAlias

from mhnos_runtime.supervisor.floods import Floods

EPOLLIN = select.EPOLLIN
EPOLLOUT = select.EPOLLOUT


#: Called with the exception of a callback.
Failed: TypeAlias = Callable[[Exception], None]


class Timer:
    """A callback that runs once, unless it is cancelled. failed: its owner's, see `Loop.owned`."""

    __slots__ = ("callback", "failed", "when")

    def __init__(self, when: float, callback: Callable[[], None], failed: Failed | None = None) -> None:
        self.when = when
        self.callback: Callable[[], None] | None = callback
        self.failed = failed

    def cancel(self) -> None:
        self.callback = None

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when


class Watching(Protocol):
    """The part of a loop that code for one process uses: `Loop` itself, or the result of `Loop.owned`."""

    @property
    def floods(self) -> Floods: ...

    def watch(self, fd: int, callback: Callable[[], None]) -> None: ...

    def unwatch(self, fd: int) -> None: ...

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer: ...


class Loop:
    """Runs callbacks for readable descriptors, due timers and signals, in one thread, until `stop`.

    An exception of a callback goes to the callback's owner, or to on_error if it has none. Its descriptor is
    no longer watched: it is still ready, and the callback would be called without end.
    """

    def __init__(self, on_error: Failed | None = None) -> None:
        self._on_error = on_error or _raise
        self._epoll = select.epoll()
        self._handlers: dict[int, tuple[Callable[[], None], Failed | None]] = {}
        self._unwatched: set[int] = set()
        self._timers: list[Timer] = []
        self.floods = Floods(self._epoll, self.after)
        self._signals: dict[int, Callable[[], None]] = {}
        self._running = False
        self._signal_reader, self._signal_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.watch(self._signal_reader, self._on_signal)

    def owned(self, failed: Failed) -> Watching:
        """This loop for one owner; `failed` gets the exceptions of its callbacks."""
        return _Owned(self, failed)

    def watch(
        self, fd: int, callback: Callable[[], None], events: int = EPOLLIN, failed: Failed | None = None
    ) -> None:
        """Call back while `fd` is ready (level-triggered; hang-up and error count as ready). At first it is
        not a flood."""
        if fd in self._handlers:
            self.floods.set(fd, False)
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._handlers[fd] = callback, failed

    def unwatch(self, fd: int) -> None:
        """Forget `fd`; must come before it is closed. Unknown descriptors are ignored."""
        if self._handlers.pop(fd, None) is not None:
            self._unwatched.add(fd)
            self.floods.set(fd, False)
            self._epoll.unregister(fd)

    def after(self, seconds: float, callback: Callable[[], None], failed: Failed | None = None) -> Timer:
        timer = Timer(time.monotonic() + seconds, callback, failed)
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
        poll, floods = self._epoll.poll, self.floods
        while self._running:
            # Events of descriptors that were closed in this turn must not reach the next owner of the number.
            self._unwatched.clear()
            ready = [fd for fd, _events in poll(self._timeout())]
            for fd in ready:
                self._serve(fd)
            if floods.fd in ready and (flood := floods.next()) is not None:
                self._serve(flood)
            if self._timers:
                self._run_timers()

    def _serve(self, fd: int) -> None:
        handler = self._handlers.get(fd)
        if handler is not None and fd not in self._unwatched:
            try:
                handler[0]()
            except Exception as error:
                self._failed_at(fd, handler[1], error)

    def _failed_at(self, fd: int, failed: Failed | None, error: Exception) -> None:
        if fd != self._signal_reader:
            with contextlib.suppress(OSError):  # closed by the callback that raised
                self.unwatch(fd)
        (failed or self._on_error)(error)

    def close(self) -> None:
        if self._signals:
            # A child may still end after this.
            signal.set_wakeup_fd(-1)
        self._epoll.close()
        self.floods.close()
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
            timer = heapq.heappop(self._timers)
            if timer.callback is not None:
                self._call(timer.callback, timer.failed)

    def _call(self, callback: Callable[[], None], failed: Failed | None) -> None:
        try:
            callback()
        except Exception as error:
            (failed or self._on_error)(error)

    def _on_signal(self) -> None:
        for number in set(os.read(self._signal_reader, 4096)):
            callback = self._signals.get(number)
            if callback is not None:
                self._call(callback, None)


class _Owned:
    """A loop for one owner."""

    def __init__(self, loop: Loop, failed: Failed) -> None:
        self._loop = loop
        self._failed = failed
        self.unwatch = loop.unwatch
        self.floods = loop.floods

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        self._loop.watch(fd, callback, failed=self._failed)

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        return self._loop.after(seconds, callback, self._failed)


def _raise(error: Exception) -> None:
    raise error
