"""What each request does. One function a request; knows the runtime and one connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec

from mhnos_runtime import proc
from mhnos_runtime.errors import InvalidRequest, MhnosError
from mhnos_runtime.process.facts import ProcessFacts
from mhnos_runtime.process.table import Process
from mhnos_runtime.sandbox import Isolation
from mhnos_runtime.server.auth.grants import Access, Grant, Need, Scope, Whole
from mhnos_runtime.server.connections.connection import Connection, Typing
from mhnos_runtime.server.connections.viewer import Viewer, ports, ready
from mhnos_runtime.server.files import fsync as files
from mhnos_runtime.server.processes.runtime import Runtime, signal_number
from mhnos_runtime.wire import messages as m
from mhnos_runtime.wire.faults import shorten

#: Of a process's command, and of its arguments, in a list: the list of all that are kept stays below a MiB or
#: two. `attached` has all of them.
LISTED_CHARACTERS = 1024
#: Signals that mean "end": they are followed by stronger ones until nothing is left.
ENDING_SIGNALS = frozenset({"SIGTERM", "SIGKILL", "SIGHUP", "SIGQUIT"})


def handle(connection: Connection, request: m.Request) -> Awaitable[None] | None:
    """Do what a request asks and see to its answer, or return what has to be awaited for that.

    What goes wrong is answered.
    """
    try:
        check(connection.grant, type(request))
        result = ROWS[type(request)].handler(connection, request)
    except MhnosError as error:
        connection.fail(error, request, pid=getattr(request, "pid", None))
        return None
    if isinstance(result, m.Message):
        connection.answer(result)
        return None
    return None if result is None else _awaited(connection, request, result)


def check(grant: Grant, kind: type[m.Message]) -> None:
    """Whether a request of this kind may be made. Raises Forbidden."""
    row = ROWS[kind]
    grant.require(row.needs, row.whole)


async def _awaited(connection: Connection, request: m.Request, work: Awaitable[None]) -> None:
    try:
        await work
    except MhnosError as error:
        connection.fail(error, request, pid=getattr(request, "pid", None))


async def spawn(connection: Connection, request: m.Spawn) -> None:
    process = await _started(connection.runtime, request)
    connection.answer(m.Spawned(process.pid, id=request.id))
    if request.attach:
        viewer = connection.watch(process, 0)
        viewer.acknowledges = request.acks
        connection.follow(viewer)
    else:
        connection.runtime.linger(process)


def plan(connection: Connection, request: m.Plan) -> m.Planned:
    launch = connection.runtime.plan(request)
    told = launch.to_dict()
    facts = ProcessFacts.decode(told.pop("facts"))
    if facts.isolation is None:
        raise RuntimeError("a plan without its isolation")
    return m.Planned(told, facts.cwd, _isolation(facts.isolation), id=request.id)


def _isolation(given: Isolation) -> m.Isolation:
    return m.Isolation(
        level=given.level,
        network=given.network,
        uid=given.uid,
        namespaces=list(given.namespaces),
        landlock=given.landlock,
        seccomp=given.seccomp,
        limits=dict(given.limits),
        host_abstract_sockets=given.host_abstract_sockets,
    )


async def _started(runtime: Runtime, request: m.Spawn) -> Process:
    """A client that leaves meanwhile has started a process all the same: it is counted, and nobody watches
    it."""

    def unwatched(starting: asyncio.Future[Process]) -> None:
        # Where the server ends, nobody is left to be told.
        if not starting.cancelled() and starting.exception() is None:
            runtime.linger(starting.result())

    starting = asyncio.ensure_future(runtime.spawn(request))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(unwatched)
        raise


def worker_config(connection: Connection, request: m.WorkerConfig) -> m.WorkerConfigText:
    return m.WorkerConfigText(connection.runtime.starter.worker_config(request), id=request.id)


def credentials(connection: Connection, request: m.Credentials) -> m.CredentialsAnswer:
    process = connection.find(request.pid)
    return m.CredentialsAnswer(process.pid, process.facts.secrets.token, id=request.id)


def attach(connection: Connection, request: m.Attach) -> None:
    process = connection.find(request.pid)
    if request.repaint:
        check(connection.grant, m.Resize)
    viewer = connection.watch(process, _start(process, request))
    viewer.acknowledges = request.acks
    reply = connection.begin()
    if connection.newer and viewer.replay_end > viewer.start:
        connection.tell(m.Replay(process.pid, viewer.start, viewer.replay_end))
    if request.repaint:
        connection.runtime.repaint(process)
    viewer.on_replayed = lambda viewer: connection.answer(_attached(viewer, request), reply)
    connection.follow(viewer)


def _start(process: Process, request: m.Attach) -> int:
    """Where to begin: without an offset at what is promised, not at what the next burst may be taking."""
    log = process.log
    if request.tail is not None:
        return max(log.oldest, log.head - request.tail)
    if request.from_ == "end":
        return log.head
    if isinstance(request.from_, int):
        if request.from_ > log.head:
            raise InvalidRequest(f"from: {request.from_} is beyond the end of the output ({log.head})")
        return request.from_
    return log.oldest


def _attached(viewer: Viewer, request: m.Attach) -> m.Attached:
    process = viewer.process
    viewer.know_facts()
    return m.Attached(
        pid=process.pid,
        status=process.state.value,
        from_=viewer.start,
        next=viewer.replay_end,
        process=describe(process),
        id=request.id,
    )


def detach(connection: Connection, request: m.Detach) -> m.Detached:
    connection.unwatch(request.pid)
    return m.Detached(request.pid, id=request.id)


def write(connection: Connection, request: m.Write) -> None:
    process = connection.get(request.pid)
    if process is None:
        return
    typing = connection.typing.get(request.pid)
    if typing is None:
        typing = connection.typing[request.pid] = Typing(process)
    try:
        connection.runtime.write(process, typing.feed(request.data))
    except MhnosError:
        connection.typing.pop(request.pid, None)
        raise


def close_stdin(connection: Connection, request: m.CloseStdin) -> m.StdinClosed:
    connection.runtime.close_stdin(connection.find(request.pid))
    return m.StdinClosed(request.pid, id=request.id)


def open_input(connection: Connection, request: m.OpenInput) -> m.InputOpened:
    process = connection.find(request.pid)
    client = connection.number_input(process, request.client)
    return m.InputOpened(
        process.pid,
        next=client.typed,
        uncertain_from=msgspec.UNSET if client.uncertain_from is None else client.uncertain_from,
        id=request.id,
    )


def resize(connection: Connection, request: m.Resize) -> None:
    process = connection.get(request.pid)
    if process is not None:
        connection.runtime.resize(process, request.cols, request.rows)


def kill(connection: Connection, request: m.Kill) -> m.Message | None:
    number = signal_number(request.signal)
    process = connection.get(request.pid)
    if process is None:
        return m.Killed(request.pid, id=request.id)
    name = request.signal if request.signal.startswith("SIG") else f"SIG{request.signal}"
    escalate = request.escalate if request.escalate is not None else name in ENDING_SIGNALS
    # At once: what is done later ends with the connection, and this client may leave without waiting.
    connection.runtime.kill(process, number, escalate)
    if not escalate:
        return m.Killed(request.pid, id=request.id)
    connection.later(_killed(connection, process, request), request)
    return None


async def _killed(connection: Connection, process: Process, request: m.Kill) -> m.Message:
    """The exit comes before the answer: clients of 1.0 forget the pid with it."""
    await connection.runtime.ended(process)
    while (viewer := connection.viewers.get(process.pid)) is not None:
        await viewer.gone.wait()
    return m.Killed(process.pid, id=request.id)


def list_(connection: Connection, request: m.List) -> m.ProcessList:
    runtime = connection.runtime
    seen = (process for process in runtime.table if connection.grant.sees(process.pid))
    shown = [_listed(process) for process in seen if request.all or process.exit is None]
    return m.ProcessList(shown, runtime.stats(), id=request.id)


def _listed(process: Process) -> m.ProcessInfo:
    """For one of hundreds: without most of a long command line."""
    info = describe(process)
    left = LISTED_CHARACTERS
    info.command = shorten(info.command, left)
    for number, text in enumerate(info.args):
        left -= len(text) + 1
        if left < 0:
            info.args = [*info.args[:number], "…"]
            break
    return info


def describe(process: Process) -> m.ProcessInfo:
    """A process as clients see it."""
    facts, record = process.facts, process.exit
    return m.ProcessInfo(
        pid=process.pid,
        type=facts.kind,
        command=facts.command,
        args=list(facts.args),
        start_time=process.record.start_time_ms,
        status=process.state.value,
        name=facts.name,
        cwd=facts.cwd,
        pty=None if process.size is None else m.PtySize(*process.size),
        os_pid=process.record.os_pid if record is None else None,
        first_offset=process.log.oldest,
        next_offset=process.log.head,
        viewers=len(process.viewers),
        sandbox=facts.sandbox,
        isolation=_isolation(facts.isolation) if facts.isolation is not None else msgspec.UNSET,
        ready=ready(process),
        ports=ports(process) or msgspec.UNSET,
        exit=None
        if record is None
        else m.ExitInfo(
            code=record.code,
            signal=record.signal,
            reason=record.reason,  # type: ignore[arg-type]  # the supervisor's reasons are the wire's
            evidence=record.evidence,
            runtime_ms=record.runtime_ms,
            cpu_ms=record.cpu_ms,
            max_rss_bytes=record.max_rss_bytes,
            bytes=record.bytes,
            end_time=record.end_time_ms,
            failure=process.failure or msgspec.UNSET,
        ),
    )


def status(connection: Connection, request: m.Status) -> m.StatusAnswer:
    settings = connection.runtime.settings
    config = m.ServerConfig(
        "/workspace", settings.sandbox, settings.allow_openclaw, max_processes=settings.max_processes
    )
    return m.StatusAnswer(config, connection.runtime.stats(), id=request.id)


def ping(_connection: Connection, request: m.Ping) -> m.Pong:
    return m.Pong(time.time_ns() // 1_000_000, id=request.id)


async def stats(connection: Connection, request: m.Stats) -> None:
    """In a thread: 50 trees of 512 tasks are some 100,000 reads of /proc."""
    if request.pid is None:
        processes = [each for each in connection.runtime.table if connection.grant.sees(each.pid)]
    else:
        processes = [connection.find(request.pid)]
    alive = [(process.pid, process.record.os_pid) for process in processes if process.exit is None]
    job = connection.runtime.files.begin(lambda: None)
    try:
        rows = await job.all(_usage(pid, os_pid) for pid, os_pid in alive)
    finally:
        job.close()
    connection.answer(m.ProcessStats(rows, id=request.id))


def _usage(pid: int, os_pid: int) -> m.ProcessUsage:
    used = proc.usage(os_pid)
    if used is None:
        return m.ProcessUsage(pid, None, None, None)
    return m.ProcessUsage(pid, used.cpu_ms, used.rss_bytes, used.tasks)


def ack(connection: Connection, request: m.Ack) -> None:
    viewer = connection.viewers.get(request.pid)
    if viewer is not None:
        viewer.acknowledge(request.offset)


def fsync(connection: Connection, request: m.Fsync) -> m.Message | Awaitable[None]:
    if request.operation == "push":
        return files.push(connection, request)
    if request.operation == "pull":
        return files.pull(connection, request)
    error = f"Unknown operation: {shorten(request.operation)}"
    return m.FsyncResult(shorten(request.operation), "error", error=error, id=request.id)


Handler = Callable[[Connection, Any], m.Message | Awaitable[None] | None]


class Row(NamedTuple):
    """A request: what a grant must have for it, and what it does. whole: it is about all processes, or all
    paths, and so not for a grant that is limited to some."""

    needs: Need
    handler: Handler
    whole: Whole = ""


#: Frames of input need what m.Write needs; a repaint what m.Resize needs; a push that is too large to be
#: gathered what m.Fsync needs.
ROWS: dict[type[m.Message], Row] = {
    m.Spawn: Row(Scope.CONTROL, spawn, "processes"),
    m.WorkerConfig: Row(Scope.CONTROL, worker_config, "processes"),
    m.Credentials: Row(Scope.CONTROL, credentials),
    m.Plan: Row(Scope.CONTROL, plan, "processes"),
    m.Attach: Row(Scope.VIEW, attach),
    m.Detach: Row(Scope.VIEW, detach),
    m.Write: Row(Scope.CONTROL, write),
    m.CloseStdin: Row(Scope.CONTROL, close_stdin),
    m.OpenInput: Row(Scope.CONTROL, open_input),
    m.Resize: Row(Scope.CONTROL, resize),
    m.Kill: Row(Scope.CONTROL, kill),
    m.List: Row(Scope.VIEW, list_),
    m.Status: Row(Scope.VIEW, status),
    m.Ping: Row(Access.GRANTED, ping),
    m.Stats: Row(Scope.CONTROL, stats),
    m.Ack: Row(Scope.VIEW, ack),
    m.Fsync: Row(Scope.FILES, fsync, "paths"),
}
