"""Starts and ends of processes in the log, for the operator. Knows processes and lines, no client.

Clients can cause such lines as often as they start something. So many starts a minute have a line as the
limiter lets through, and each of these processes gets the line of its end as well; the next line of a start
says how many had none.
"""

from __future__ import annotations

from mhnos_runtime.launch import ExitRecord
from mhnos_runtime.observe.limit import Limiter
from mhnos_runtime.observe.logs import Log
from mhnos_runtime.process.table import Process

#: Characters of a process's name in a line.
_MAX_NAME = 100


class LifeLog:
    """limiter: of these lines alone, so that strangers who are refused do not hide what runs."""

    def __init__(self, log: Log, limiter: Limiter) -> None:
        self._log = log
        self._limiter = limiter
        # Pids of those whose end will have a line.
        self._followed: set[int] = set()
        self._unreported = 0

    def found(self, process: Process) -> None:
        """It ran before this server did; its start was an earlier server's to tell."""
        self._followed.add(process.pid)

    def started(self, process: Process, by: str) -> None:
        """by: the principal who asked for it."""
        if not self._limiter.allow():
            self._unreported += 1
            return
        left_out, self._unreported = self._unreported, 0
        self._followed.add(process.pid)
        more = {"unreported": left_out} if left_out else {}
        self._log.info("process started", **_which(process), by=by, **more)

    def ended(self, process: Process, record: ExitRecord, by: str) -> None:
        """by: the principal who asked for the end, "" where nobody did."""
        if process.pid not in self._followed:
            return
        self._followed.discard(process.pid)
        how: dict[str, object] = {"reason": record.reason}
        how |= {"code": record.code} if record.code is not None else {}
        how |= {"signal": record.signal} if record.signal is not None else {}
        how |= {"by": by} if by else {}
        how |= {"seconds": record.runtime_ms / 1000} if record.runtime_ms is not None else {}
        self._log.info("process ended", **_which(process), **how)


def _which(process: Process) -> dict[str, object]:
    facts = process.facts
    named = {"name": facts.name[:_MAX_NAME]} if facts.name else {}
    return {"process": process.pid, "kind": facts.kind, **named}
