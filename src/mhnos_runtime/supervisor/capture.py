"""One process's output on its way into its log: read in turns, until backpressure stops it, to its end.

Knows descriptors and the log; not what is at the other end of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from mhnos_runtime.output import LogWriter
from mhnos_runtime.supervisor.floods import FLOOD_BYTES
from mhnos_runtime.supervisor.loop import Timer, Watching
from mhnos_runtime.supervisor.sources import fill, readable_bytes

#: How far a hold must move within the stall time; a viewer that moves less is stalled, even if it trickles.
PROGRESS_BYTES = 64 * 1024

#: How long the server may take to set the next hold after the slowest viewer was passed by. Until then no
#: other viewer can lose output, also on a busy machine; a server that hangs is replaced after 5 s.
SERVER_ANSWER_SECONDS = 1.0

#: How long to wait, after the tree is gone, for output that a process outside the tree holds open.
DRAIN_SECONDS = 1.0

#: How often to check whether a closed terminal is open again. A script that redirects its output may come
#: back to /dev/tty; until then the kernel's 4 KiB are room enough.
REOPENED_SECONDS = 0.2


class Capture:
    """Reads until every source has ended.

    on_output: called when a parked reader has to be woken. on_closed: called for each source that has ended,
    after it is closed.
    """

    on_output: Callable[[], None]

    def __init__(
        self,
        loop: Watching,
        log: LogWriter,
        pid: int,
        sources: dict[int, int],
        terminal: bool,
        stall_seconds: float,
        on_closed: Callable[[int], None],
    ) -> None:
        """sources: descriptor to stream, closed here. terminal: whether an ended source may be opened again,
        until `drain`."""
        self.sources = sources
        self._loop = loop
        self._log = log
        self._pid = pid
        self._terminal = terminal
        self._stall_seconds = stall_seconds
        self._on_closed = on_closed
        self._stall_timer: Timer | None = None
        self._reopen_timer: Timer | None = None
        self._progress: tuple[int, float] | None = None
        self._draining = False
        self._drain_to = 0
        log.unblock()
        self._watch()

    def _watch(self) -> None:
        for fd, stream in self.sources.items():
            self._watch_source(fd, stream)

    def _watch_source(self, fd: int, stream: int) -> None:
        self._loop.watch(fd, lambda: self._read(fd, stream))

    def _read(self, fd: int, stream: int) -> None:
        """Read into the log until the source is empty, or for one burst, so that all processes get their
        turn."""
        log = self._log
        room = log.room()
        if not room:
            self._block()
            return
        total, more = fill(fd, *log.reserve(room))
        if total:
            log.advance(total, stream, time.time_ns() // 1_000_000)
            if log.publish():
                self.on_output()
            self._loop.floods.answered(self._pid)
        if more is None:
            self._ended(fd)
        else:
            self._loop.floods.set(fd, not self._draining and (more or total >= FLOOD_BYTES))

    def typed(self) -> None:
        """Somebody types into the process: floods pause until it answers, unless it is a flood itself."""
        for fd in self.sources:
            self._loop.floods.set(fd, False)
        self._loop.floods.pause(self._pid)

    # The end

    def _ended(self, fd: int) -> None:
        if not self._terminal or self._draining:
            self._close(fd)
            return
        # Nobody has the terminal open now. Closing this end would hang up the processes on it.
        self._loop.unwatch(fd)
        if self._reopen_timer is None:
            self._reopen_timer = self._loop.after(REOPENED_SECONDS, self._look_for_reopened)

    def _look_for_reopened(self) -> None:
        self._reopen_timer = None
        if self._stall_timer is None:
            self._watch()

    def _close(self, fd: int) -> None:
        self._loop.unwatch(fd)
        del self.sources[fd]
        os.close(fd)
        self._on_closed(fd)

    def drain(self) -> None:
        """Nothing more will be written: read everything to the end, also past a slow viewer."""
        self._draining = True
        self._drain_to = self._log.head + sum(map(readable_bytes, self.sources))
        self._loop.after(DRAIN_SECONDS, self._stop_draining)
        if self._stall_timer is None:
            self._watch()

    def _stop_draining(self) -> None:
        """Stop waiting for an end that an outside process holds open, once the tree's output is read."""
        if self.sources and (self._stall_timer is not None or self._log.head < self._drain_to):
            self._loop.after(DRAIN_SECONDS, self._stop_draining)
            return
        for fd in list(self.sources):
            self._close(fd)

    def close(self) -> None:
        """Close all sources, read or not, without callbacks."""
        for fd in self.sources:
            self._loop.unwatch(fd)
            os.close(fd)
        self.sources.clear()
        for timer in (self._stall_timer, self._reopen_timer):
            if timer is not None:
                timer.cancel()  # the log may be closed by then

    # Backpressure: output/holds.py decides for whom

    def _block(self) -> None:
        """Stop reading until the viewer that holds the log has moved on, or the stall time is over."""
        if not self._log.block():
            return
        now = time.monotonic()
        hold = self._log.hold
        if self._progress is None or hold >= self._progress[0] + PROGRESS_BYTES:
            self._progress = (hold, now)
        for fd in self.sources:
            self._loop.unwatch(fd)
        wait = self._progress[1] + self._stall_seconds - now
        self._stall_timer = self._loop.after(max(0.0, wait), self._pass_by)

    def _pass_by(self) -> None:
        """The slowest viewer's stall time is over: overwrite, and let the server set the next hold."""
        if self._log.room():
            self.resume()
            return
        self._progress = None
        self._log.pass_by()
        self.on_output()
        self._stall_timer = self._loop.after(SERVER_ANSWER_SECONDS, self._waited_for_an_answer)

    def _waited_for_an_answer(self) -> None:
        """Go on without an answer, since a hung server must not block the process."""
        self.resume()
        if self._stall_timer is not None:
            # The server has set another hold that leaves no room; its stall time starts now.
            self._stall_timer = self._loop.after(self._stall_seconds, self._pass_by)

    def resume(self) -> None:
        """Read on if there is room; called when a viewer has moved on."""
        if self._stall_timer is None or not self._log.room():
            return
        self._stall_timer.cancel()
        self._stall_timer = None
        self._log.unblock()
        self._watch()
        for fd in self.sources:
            self._loop.floods.set(fd, not self._draining)
