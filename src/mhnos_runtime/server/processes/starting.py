"""Starting processes: the bounds on a start, from a request to an entry in the table. Knows no connection."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping

from mhnos_runtime.errors import Refused
from mhnos_runtime.launch import LaunchPlan
from mhnos_runtime.process.kind import Kind
from mhnos_runtime.process.table import Process, ProcessTable
from mhnos_runtime.server.processes import room
from mhnos_runtime.server.processes.keys import Keys
from mhnos_runtime.server.processes.link import SupervisorLink
from mhnos_runtime.server.processes.planning import Planner
from mhnos_runtime.wire import messages as m


class Starting:
    """Has the supervisor start what clients ask for, within the bounds of the operator and the machine."""

    def __init__(self, table: ProcessTable, planner: Planner, link: SupervisorLink) -> None:
        self._table = table
        self._planner = planner
        self._link = link
        self._keys = Keys(table)
        self._singles: set[str] = set()

    async def spawn(self, request: m.Spawn) -> Process:
        """Start what a client asks for, or find what the same request with the same key has started.

        Raises MhnosError with a code for whatever is wrong. Not to be cancelled when the client leaves: a
        program that is under way could then be started twice, by its key or as the single one of its kind.
        """
        return await self._keys.once(request, lambda: self._spawn(request))

    async def _spawn(self, request: m.Spawn) -> Process:
        asked = self._planner.asked(request)
        with self._alone(asked.kind):
            self._table.reserve(request.name)
            try:
                room.check_start(self._table.starting)
                with self._planner.prepare(asked, self._environment(asked.kind)) as start:
                    pid = await self._link.spawn(start.plan, start.descriptors)
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    raise
                raise room.none_left() from error
            finally:
                self._table.release(request.name)
        return self._table.find(pid)

    def plan(self, request: m.Spawn) -> LaunchPlan:
        """What `spawn` would have executed. Raises as `spawn`, but for what only a start can show."""
        asked = self._planner.asked(request)
        with self._planner.prepare(asked, self._environment(asked.kind), dry=True) as start:
            return start.plan

    def worker_config(self, request: m.WorkerConfig) -> str:
        """The config that a spawn of the same script would run. Raises as `spawn`."""
        return self._planner.worker_config(request)

    @contextlib.contextmanager
    def _alone(self, kind: Kind) -> Iterator[None]:
        """Keep a second process of a kind that runs one at a time from starting meanwhile. Raises Refused
        (already-running)."""
        if not kind.single:
            yield
            return
        running = self._running(kind.name)
        if running is not None or kind.name in self._singles:
            raise Refused(
                f"{kind.name} runs already" + (f", as process {running.pid}" if running else ""),
                code="already-running",
                hint="attach to it, or end it first",
            )
        self._singles.add(kind.name)
        try:
            yield
        finally:
            self._singles.discard(kind.name)

    def _running(self, kind: str) -> Process | None:
        """The process of a kind that runs one at a time."""
        alive = (each for each in self._table if each.exit is None and each.facts.single)
        return next((each for each in alive if each.facts.kind == kind), None)

    def _environment(self, kind: Kind) -> Mapping[str, str]:
        """What a process is told of the one of its kind that runs."""
        running = self._running(kind.name)
        return kind.hooks.environment(None if running is None else running.facts)
