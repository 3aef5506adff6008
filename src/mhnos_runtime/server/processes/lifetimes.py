"""How long processes run and are kept: signals, ends, viewers, linger and expiry. Knows no plan and no
connection."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable

from mhnos_runtime.launch import ExitRecord
from mhnos_runtime.process.state import Event
from mhnos_runtime.process.table import Process, ProcessTable
from mhnos_runtime.server.processes.lifelog import LifeLog
from mhnos_runtime.server.processes.link import SupervisorLink

#: An expiry timer rings so much later than it has to, since the wall clock, by which processes expire, may be
#: behind the event loop's.
_LATE_SECONDS = 0.01


class Lifetimes:
    """Ends processes, and removes those from the table that have ended and are kept no longer."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, table: ProcessTable, link: SupervisorLink, log: LifeLog
    ) -> None:
        self._log = log
        # Who asked last for the end of each process, as principals.
        self._enders: dict[int, str] = {}
        self._loop = loop
        self._table = table
        self._link = link
        self._ended: dict[int, asyncio.Future[None]] = {}
        # Pids of started processes, until `enter` or `linger` tells whether the client watches: one that ends
        # at once could expire before its start is answered.
        self._unanswered: set[int] = set()
        self._lingering: dict[int, asyncio.TimerHandle] = {}
        self._expiry: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """No timer rings any more."""
        for timer in (*self._lingering.values(), *([self._expiry] if self._expiry else [])):
            timer.cancel()
        self._lingering.clear()
        self._expiry = None

    def begin(self, process: Process, new: bool = True, by: str = "") -> None:
        """A process has come into the table. new: it has just been started, by: for this principal."""
        if process.exit is None:
            self._ended[process.pid] = self._loop.create_future()
            self._unanswered.add(process.pid)
            if new:
                self._log.started(process, by)
            else:
                self._log.found(process)

    def end(self, process: Process, exit_record: ExitRecord) -> None:
        """A process has ended, with everything that it had started."""
        process.end(exit_record)
        self._log.ended(process, exit_record, self._enders.pop(process.pid, ""))
        self._stop_lingering(process.pid)
        self._ended.pop(process.pid).set_result(None)
        process.wake()
        self.expire()

    def kill(self, process: Process, number: int, escalate: bool, by: str = "") -> None:
        """Send a signal; with escalate, stronger ones follow until nothing of the process is left. by: the
        principal who asks for it."""
        self._signal(process, number, "killed", escalate)
        if escalate:
            self._enders[process.pid] = by

    def _signal(self, process: Process, number: int, reason: str, escalate: bool) -> None:
        process.happen(Event.END_REQUESTED if escalate else Event.SIGNALLED)
        self._link.kill(process.pid, number, reason, escalate)

    async def ended(self, process: Process) -> None:
        """Return when nothing of the process is left."""
        ended = self._ended.get(process.pid)
        if ended is not None:
            await asyncio.shield(ended)

    # Viewers

    def enter(self, process: Process, viewer: object, wake: Callable[[], None]) -> None:
        """A viewer begins to watch. wake: called when there is something to read."""
        self._stop_lingering(process.pid)
        self._unanswered.discard(process.pid)
        process.viewers[viewer] = wake

    def leave(self, process: Process, viewer: object) -> None:
        """A viewer watches no longer."""
        process.viewers.pop(viewer, None)
        if process.exit is None:
            self.linger(process)
        else:
            self.expire()

    def linger(self, process: Process) -> None:
        """A viewer has left, or the client that asked for the process does not watch it. Where nobody does,
        end it after the time that its request has set, counted from now."""
        if process.pid in self._unanswered:
            self._unanswered.remove(process.pid)
            if process.exit is not None:
                self.expire()
        linger_ms = process.facts.linger_ms
        if linger_ms is None or process.viewers or process.exit is not None:
            return
        self._stop_lingering(process.pid)
        self._lingering[process.pid] = self._loop.call_later(linger_ms / 1000, self._end_idle, process)

    def _end_idle(self, process: Process) -> None:
        del self._lingering[process.pid]
        self._signal(process, signal.SIGTERM, "idle", escalate=True)

    def _stop_lingering(self, pid: int) -> None:
        timer = self._lingering.pop(pid, None)
        if timer is not None:
            timer.cancel()

    # Expiry

    def expire(self) -> None:
        """Remove what is kept no longer, and set a timer for what is next."""
        now_ms = _now_ms()
        for process in self._table.expire(now_ms, self._unanswered):
            process.close()
            self._link.forget(process.pid)
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        due_ms = self._table.next_expiry_ms(self._unanswered)
        if due_ms is not None:
            delay = max(0.0, (due_ms - now_ms) / 1000) + _LATE_SECONDS
            self._expiry = self._loop.call_later(delay, self.expire)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
