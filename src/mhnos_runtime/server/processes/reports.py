"""What the supervisor reports about processes, as changes of their table. Knows no client."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from mhnos_runtime.errors import MhnosError
from mhnos_runtime.launch import ExitRecord, ProcessDescriptors, ProcessRecord
from mhnos_runtime.observe import logs
from mhnos_runtime.output import Holds, LogReader
from mhnos_runtime.process.facts import UNKNOWN, ProcessFacts, Unreadable
from mhnos_runtime.process.input import InputQueue
from mhnos_runtime.process.table import Process, ProcessTable
from mhnos_runtime.server.processes.lifetimes import Lifetimes
from mhnos_runtime.server.processes.link import SupervisorLink
from mhnos_runtime.server.processes.readiness import Watchers
from mhnos_runtime.server.processes.records import Records
from mhnos_runtime.server.processes.terminals import Terminals

_log = logs.get("server")


class Reports:
    """The listener of the supervisor's link. gone: called when there is no supervisor any more.

    ready: set when the table is as the last server left it, so that clients may come, and when there is no
    supervisor any more.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        stall_seconds: float,
        table: ProcessTable,
        lifetimes: Lifetimes,
        records: Records,
        terminals: Terminals,
        link: SupervisorLink,
        gone: Callable[[], None],
    ) -> None:
        self.ready = asyncio.Event()
        self._loop = loop
        self._stall_seconds = stall_seconds
        self._table = table
        self._lifetimes = lifetimes
        self._terminals = terminals
        self._link = link
        self._gone = gone
        self._watchers = Watchers(loop, records.note)

    def close(self) -> None:
        """Nothing is looked at any more to see whether processes are ready."""
        self._watchers.close()

    def on_process(self, record: ProcessRecord, descriptors: ProcessDescriptors, new: bool) -> None:
        """There is a process: one that an earlier server left (not new), or one that has started now, for
        this server or an earlier one.

        Takes the descriptors over, unless it raises OSError, or Unavailable for a log that cannot be read.
        """
        # First what can fail.
        try:
            log = LogReader(os.dup(descriptors.log))
        except MhnosError as error:
            _log.error("the output of a process cannot be read", pid=record.pid, reason=str(error))
            raise
        os.close(descriptors.log)
        queue = InputQueue(descriptors.input, self._loop) if descriptors.input >= 0 else None
        holds = Holds(log, self._stall_seconds, self._loop.call_later, lambda: self._link.moved(record.pid))
        process = Process(record, log, queue, holds, _facts(record))
        self._table.add(process, new)
        self._lifetimes.begin(process, new)
        self._watchers.begin(process, descriptors.control)

    def on_ready(self) -> None:
        """The supervisor has reported all processes that there are; their clients will come back."""
        for process in self._table:
            self._terminals.restore_size(process)
            self._lifetimes.linger(process)
        self._lifetimes.expire()
        self.ready.set()

    def on_output(self, pid: int) -> None:
        process = self._table.get(pid)
        if process is None:
            return
        process.holds.look()
        self._watchers.look(pid)
        process.wake()

    def on_exit(self, pid: int, exit_record: ExitRecord) -> None:
        process = self._table.get(pid)
        if process is None:
            return  # a process that was discarded, see SupervisorLink
        self._watchers.ended(pid)
        self._lifetimes.end(process, exit_record)

    def on_supervisor_gone(self) -> None:
        self._gone()
        self.ready.set()


def _facts(record: ProcessRecord) -> ProcessFacts:
    try:
        return ProcessFacts.decode(record.facts)
    except Unreadable as error:
        _log.error("the facts about a process cannot be read", pid=record.pid, reason=str(error))
        return UNKNOWN
