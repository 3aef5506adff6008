"""Finds processes, has them end and waits for that, over a blocking connection. Knows no verb."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mhnos_runtime.client.direct import Direct
    from mhnos_runtime.wire.messages import ExitInfo, ProcessInfo


def found(runtime: Direct, handle: int | str) -> ProcessInfo:
    """The process that a pid or name means. Raises RequestFailed."""
    from mhnos_runtime.wire import messages as m

    return runtime.ask(m.Inspect(pid=handle), m.Inspected).process


def found_running(runtime: Direct, handle: int | str) -> ProcessInfo:
    """As `found`. Raises RequestFailed for one that has ended too."""
    return running(found(runtime, handle), handle)


def running(process: ProcessInfo, handle: int | str) -> ProcessInfo:
    """The process that was found by a handle, if it runs. Raises RequestFailed."""
    from mhnos_runtime.client.errors import RequestFailed

    if exit_of(process) is not None:
        raise RequestFailed(f"process {handle} does not run", hint="`mhnos-runtime ps` lists those that do")
    return process


def exit_of(process: ProcessInfo) -> ExitInfo | None:
    """How it ended; None while it runs."""
    from mhnos_runtime.wire import messages as m

    return process.exit if isinstance(process.exit, m.ExitInfo) else None


class Ends:
    """The ends of processes, from here on. Begins before a process is looked for: no end is missed."""

    def __init__(self, runtime: Direct) -> None:
        from mhnos_runtime.wire import messages as m

        self._runtime = runtime
        self._seen: dict[int, ExitInfo] = {}
        runtime.ask(m.Subscribe(), m.Subscribed)

    def of(self, handle: int | str) -> ExitInfo:
        """When it has ended, or has before. Raises RequestFailed."""
        process = found(self._runtime, handle)
        ended = exit_of(process) or self.wait(process.pid)
        assert ended is not None  # noqa: S101 - without a time limit
        return ended

    def wait(self, pid: int, until: float | None = None) -> ExitInfo | None:
        """The end of one that runs; None: not until then (time.monotonic). Raises ConnectionLost, and
        RequestFailed for what was sent to it and refused."""
        from mhnos_runtime.client.errors import RequestTimedOut

        while pid not in self._seen:
            try:
                self._take(pid, None if until is None else max(0.001, until - time.monotonic()))
            except RequestTimedOut:
                return None
        return self._seen[pid]

    def _take(self, pid: int, timeout_s: float | None) -> None:
        from mhnos_runtime.client.received import failure
        from mhnos_runtime.wire import messages as m

        event = self._runtime.receive(timeout_s)
        if isinstance(event, m.ErrorMessage):
            raise failure(event)
        if not isinstance(event, m.ProcessEvent):
            return
        # What was dropped may have been its end.
        told = event.process if isinstance(event.process, m.ProcessInfo) else found(self._runtime, pid)
        if (ended := exit_of(told)) is not None:
            self._seen[told.pid] = ended


def signal(runtime: Direct, pid: int, name: str, *, escalate: bool) -> None:
    """Send a signal; with escalate, stronger ones follow until nothing is left, and nobody waits for that."""
    from mhnos_runtime.wire import messages as m

    request = m.Kill(pid=pid, signal=name, escalate=escalate)
    if escalate:
        runtime.send(request)
    else:
        runtime.ask(request, m.Killed)


def end_within(runtime: Direct, ends: Ends, pids: Iterable[int], grace_s: float) -> None:
    """Wait for processes that were asked to end; SIGKILL for those that have not after the grace."""
    until = time.monotonic() + grace_s
    late = [pid for pid in pids if ends.wait(pid, until) is None]
    for pid in late:
        signal(runtime, pid, "SIGKILL", escalate=True)
