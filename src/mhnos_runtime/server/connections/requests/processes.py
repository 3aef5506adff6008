"""Requests about processes: to start, end, list and measure them. Knows no plan and no frame."""

from __future__ import annotations

import asyncio
import signal

from mhnos_runtime import proc
from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.process.facts import ProcessFacts
from mhnos_runtime.process.table import Process, ProcessTable
from mhnos_runtime.server.auth.grants import Scope
from mhnos_runtime.server.connections.connection import Connection
from mhnos_runtime.server.connections.requests.table import Row, Rows
from mhnos_runtime.server.connections.shown import describe, isolation, listed, stats
from mhnos_runtime.server.files.work import FileWork
from mhnos_runtime.server.processes.lifetimes import Lifetimes
from mhnos_runtime.server.processes.records import Records
from mhnos_runtime.server.processes.starting import Starting
from mhnos_runtime.wire import messages as m

#: Signals that mean "end": they are followed by stronger ones until nothing is left.
ENDING_SIGNALS = frozenset({"SIGTERM", "SIGKILL", "SIGHUP", "SIGQUIT"})


class ProcessRequests:
    """Handlers about processes; they know what to start or end, not how."""

    def __init__(
        self,
        table: ProcessTable,
        starting: Starting,
        lifetimes: Lifetimes,
        records: Records,
        work: FileWork,
    ) -> None:
        self._table = table
        self._starting = starting
        self._lifetimes = lifetimes
        self._records = records
        self._work = work

    def rows(self) -> Rows:
        return {
            m.Spawn: Row(Scope.CONTROL, self.spawn, "processes"),
            m.Plan: Row(Scope.CONTROL, self.plan, "processes"),
            m.WorkerConfig: Row(Scope.CONTROL, self.worker_config, "processes"),
            m.Credentials: Row(Scope.CONTROL, self.credentials),
            m.Kill: Row(Scope.CONTROL, self.kill),
            m.List: Row(Scope.VIEW, self.list_),
            m.Stats: Row(Scope.CONTROL, self.stats),
            # All processes share one set of names: by them a grant for some would learn of the others.
            m.Rename: Row(Scope.CONTROL, self.rename, "processes"),
            m.Inspect: Row(Scope.VIEW, self.inspect),
            m.Remove: Row(Scope.CONTROL, self.remove),
        }

    async def spawn(self, connection: Connection, request: m.Spawn) -> None:
        process = await self._started(request, connection.grant.principal)
        connection.watching.started(process)
        connection.answer(m.Spawned(process.pid, id=request.id))
        if request.attach:
            connection.watching.watch(process, 0, request.acks)
        else:
            self._lifetimes.linger(process)

    async def _started(self, request: m.Spawn, by: str) -> Process:
        """Also for a client that leaves meanwhile: its process is started, and nobody watches it."""

        def unwatched(starting: asyncio.Future[Process]) -> None:
            # Where the server ends, nobody is left to be told.
            if not starting.cancelled() and starting.exception() is None:
                self._lifetimes.linger(starting.result())

        starting = asyncio.ensure_future(self._starting.spawn(request, by))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(unwatched)
            raise

    def plan(self, _connection: Connection, request: m.Plan) -> m.Planned:
        launch = self._starting.plan(request)
        told = launch.to_dict()
        facts = ProcessFacts.decode(told.pop("facts"))
        if facts.isolation is None:
            raise RuntimeError("a plan without its isolation")
        return m.Planned(told, facts.cwd, isolation(facts.isolation), id=request.id)

    def worker_config(self, _connection: Connection, request: m.WorkerConfig) -> m.WorkerConfigText:
        return m.WorkerConfigText(self._starting.worker_config(request), id=request.id)

    def credentials(self, connection: Connection, request: m.Credentials) -> m.CredentialsAnswer:
        process = connection.find(request.pid)
        return m.CredentialsAnswer(process.pid, process.facts.secrets.token, id=request.id)

    def kill(self, connection: Connection, request: m.Kill) -> m.Message | None:
        number = signal_number(request.signal)
        process = connection.get(request.pid)
        if process is None:
            return m.Killed(connection.pid(request.pid), id=request.id)
        name = request.signal if request.signal.startswith("SIG") else f"SIG{request.signal}"
        escalate = request.escalate if request.escalate is not None else name in ENDING_SIGNALS
        # At once: what is done later ends with the connection, and this client may leave without waiting.
        self._lifetimes.kill(process, number, escalate, connection.grant.principal)
        if not escalate:
            return m.Killed(process.pid, id=request.id)
        connection.later(self._killed(connection, process, request), request)
        return None

    async def _killed(self, connection: Connection, process: Process, request: m.Kill) -> m.Message:
        """The exit comes before the answer: clients of 1.0 forget the pid with it."""
        await self._lifetimes.ended(process)
        while (viewer := connection.watching.get(process.pid)) is not None:
            await viewer.gone.wait()
        return m.Killed(process.pid, id=request.id)

    def list_(self, connection: Connection, request: m.List) -> m.ProcessList:
        seen = (process for process in self._table if connection.grant.sees(process.pid))
        shown = [listed(process) for process in seen if request.all or process.exit is None]
        return m.ProcessList(shown, stats(self._table), id=request.id)

    def rename(self, connection: Connection, request: m.Rename) -> m.Renamed:
        process = connection.find(request.pid)
        self._records.rename(process, request.name)
        return m.Renamed(process.pid, request.name, id=request.id)

    def inspect(self, connection: Connection, request: m.Inspect) -> m.Inspected:
        return m.Inspected(describe(connection.find(request.pid)), id=request.id)

    def remove(self, connection: Connection, request: m.Remove) -> m.Removed:
        process = connection.find(request.pid)
        self._lifetimes.remove(process)
        return m.Removed(process.pid, id=request.id)

    async def stats(self, connection: Connection, request: m.Stats) -> m.ProcessStats:
        """In a thread: 50 trees of 512 tasks are some 100,000 reads of /proc."""
        if request.pid is None:
            processes = [each for each in self._table if connection.grant.sees(each.pid)]
        else:
            processes = [connection.find(request.pid)]
        alive = [(process.pid, process.record.os_pid) for process in processes if process.exit is None]
        with self._work.begin(lambda: None, connection) as job:
            rows = await job.all(_usage(pid, os_pid) for pid, os_pid in alive)
        return m.ProcessStats(rows, id=request.id)


def _usage(pid: int, os_pid: int) -> m.ProcessUsage:
    used = proc.usage(os_pid)
    if used is None:
        return m.ProcessUsage(pid, None, None, None)
    return m.ProcessUsage(pid, used.cpu_ms, used.rss_bytes, used.tasks)


def signal_number(name: str) -> int:
    """A signal by name, with or without SIG, or by number. Raises InvalidRequest with the text of protocol
    1.0."""
    try:
        if name.isdigit():
            return signal.Signals(int(name)).value
        return signal.Signals[name if name.startswith("SIG") else f"SIG{name}"].value
    except (KeyError, ValueError):
        raise InvalidRequest(f"Unknown signal: {name}", code="unknown-signal") from None
