"""How long processes run and are kept: signals, ends, viewers, linger and expiry. Knows no plan and no
connection."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable

from mhnos_runtime.errors import Refused
from mhnos_runtime.launch import ExitRecord
from mhnos_runtime.process.state import Event
from mhnos_runtime.process.table import Process, ProcessTable
from mhnos_runtime.server.processes.lifelog import LifeLog
from mhnos_runtime.server.processes.link import SupervisorLink
from mhnos_runtime.server.processes.news import Tell

#: An expiry timer rings so much later than it has to, since the wall clock, by which processes expire, may be
#: behind the event loop's.
_LATE_SECONDS = 0.01
#: How long a record that goes at the end waits for a client that may have been cut off before it got all: a
#: client notices after 30 s of silence, and then tries each 10 s.
RETURN_MS = 60_000


class Vanished:
    """A client that may come back. Which one that was, nothing shows."""


class Lifetimes:
    """Ends processes, and removes those from the table that have ended and are kept no longer."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        table: ProcessTable,
        link: SupervisorLink,
        tell: Tell,
        log: LifeLog,
    ) -> None:
        self._log = log
        # Who asked last for a signal to each process that runs, as principals.
        self._enders: dict[int, str] = {}
        self._loop = loop
        self._tell = tell
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

    def begin(self, process: Process, new: bool, by: str = "") -> None:
        """A process has come into the table. new: it has started now, by: for this principal; else clients of
        an earlier server may come back to it."""
        if new:
            self._tell("started", process, process.record.start_time_ms)
        else:
            self.wait_for(process, Vanished())
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
        ender = self._enders.pop(process.pid, "")
        self._log.ended(process, exit_record, ender if exit_record.reason == "killed" else "")
        self._stop_lingering(process.pid)
        self._ended.pop(process.pid).set_result(None)
        self._tell("ended", process, exit_record.end_time_ms)
        process.wake()
        self.expire()

    def kill(self, process: Process, number: int, escalate: bool, by: str = "") -> None:
        """Send a signal; with escalate, stronger ones follow until nothing of the process is left. by: the
        principal who asks for it."""
        self._signal(process, number, "killed", escalate)
        if process.exit is None:
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
        if process.forgotten:
            self._close(process)
        elif process.exit is None:
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

    # Records that go at the end, see Process.awaited

    def wait_for(self, process: Process, client: object) -> None:
        """The client may be cut off before it has got what it was sent, and come back for it. A client that
        is new here stands for one that has vanished."""
        if not process.facts.remove:
            return
        now_ms = _now_ms()
        awaited = {each: until for each, until in process.awaited.items() if until > now_ms}
        if client not in awaited:
            awaited.pop(next((each for each in awaited if isinstance(each, Vanished)), None), None)
        process.awaited = {**awaited, client: now_ms + RETURN_MS}

    def has_vanished(self, process: Process, client: object) -> None:
        """The client was cut off."""
        until = process.awaited.pop(client, None)
        if until is not None:
            process.awaited[Vanished()] = until

    def has_got_all(self, process: Process, client: object) -> None:
        """The client has said goodbye."""
        if process.awaited.pop(client, None) is not None and not process.forgotten:
            self.expire()

    # Removal

    def remove(self, process: Process) -> None:
        """Forget an ended process; those who are reading its output read it to the end. Raises Refused
        (still-running)."""
        if process.exit is None:
            raise Refused(
                f"process {process.pid} is still running",
                code="still-running",
                hint="end it first, with kill",
            )
        self._unanswered.discard(process.pid)
        self._forget(process)

    def _forget(self, process: Process) -> None:
        self._tell("removed", process, _now_ms())
        self._table.drop(process)
        self._link.forget(process.pid)
        self._close(process)

    def _close(self, process: Process) -> None:
        """When the last viewer has left: the output is readable for as long as it is open."""
        if not process.viewers:
            process.close()

    # Expiry

    def expire(self) -> None:
        """Remove what is kept no longer, and set a timer for what is next."""
        now_ms = _now_ms()
        for process in self._table.expired(now_ms, self._unanswered):
            self._forget(process)
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        due_ms = self._table.next_expiry_ms(self._unanswered)
        if due_ms is not None:
            delay = max(0.0, (due_ms - now_ms) / 1000) + _LATE_SECONDS
            self._expiry = self._loop.call_later(delay, self.expire)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
