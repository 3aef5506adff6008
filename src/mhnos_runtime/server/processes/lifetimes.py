"""How long processes live and are kept: signals, ends, who watches, linger and expiry. Knows no plan and no
client."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable

from mhnos_runtime.launch import ExitRecord
from mhnos_runtime.process.state import Event
from mhnos_runtime.process.table import Process, ProcessTable
from mhnos_runtime.server.processes.link import SupervisorLink


class Lifetimes:
    """Ends processes, and forgets those that have ended."""

    def __init__(self, loop: asyncio.AbstractEventLoop, table: ProcessTable, link: SupervisorLink) -> None:
        self._loop = loop
        self._table = table
        self._link = link
        self._ended: dict[int, asyncio.Future[None]] = {}
        self._lingering: dict[int, asyncio.TimerHandle] = {}
        self._expiry: asyncio.TimerHandle | None = None

    def close(self) -> None:
        for timer in (*self._lingering.values(), *([self._expiry] if self._expiry else [])):
            timer.cancel()
        self._lingering.clear()
        self._expiry = None

    def begin(self, process: Process) -> None:
        """A process has come into the table."""
        if process.exit is None:
            self._ended[process.pid] = self._loop.create_future()

    def end(self, process: Process, exit_record: ExitRecord) -> None:
        """A process has ended, with everything that it had started."""
        process.end(exit_record)
        self._ended.pop(process.pid).set_result(None)
        process.wake()
        self.expire()

    def kill(self, process: Process, number: int, escalate: bool) -> None:
        """Send a signal; with escalate, stronger ones follow until nothing of the process is left."""
        process.happen(Event.END_REQUESTED if escalate else Event.SIGNALLED)
        self._link.kill(process.pid, number, "killed", escalate)

    async def ended(self, process: Process) -> None:
        """Return when nothing of the process is left."""
        ended = self._ended.get(process.pid)
        if ended is not None:
            await asyncio.shield(ended)

    def linger(self, process: Process) -> None:
        """Nobody may be watching any more: end the process if it was asked for, after the time it was
        given."""
        linger_ms = process.facts.linger_ms
        if linger_ms is None or process.viewers or process.exit is not None:
            return
        self._stop_lingering(process.pid)
        self._lingering[process.pid] = self._loop.call_later(linger_ms / 1000, self._end_idle, process)

    def _end_idle(self, process: Process) -> None:
        self._lingering.pop(process.pid, None)
        if process.exit is None and not process.viewers:
            process.happen(Event.END_REQUESTED)
            self._link.kill(process.pid, signal.SIGTERM, "idle", escalate=True)

    def _stop_lingering(self, pid: int) -> None:
        timer = self._lingering.pop(pid, None)
        if timer is not None:
            timer.cancel()

    def expire(self) -> None:
        """Forget what is kept no longer, and come back when there will be something more."""
        for process in self._table.expire(_now_ms()):
            process.close()
            self._link.forget(process.pid)
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        due_ms = self._table.next_expiry_ms()
        if due_ms is not None:
            self._expiry = self._loop.call_later(max(0.0, (due_ms - _now_ms()) / 1000) + 0.01, self.expire)

    def enter(self, process: Process, viewer: object, wake: Callable[[], None]) -> None:
        """Someone begins to watch."""
        self._stop_lingering(process.pid)
        process.viewers[viewer] = wake

    def leave(self, process: Process, viewer: object) -> None:
        """Someone watches no longer."""
        process.viewers.pop(viewer, None)
        self.linger(process)
        if process.exit is not None:
            self.expire()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
