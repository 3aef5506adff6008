"""Processes as clients see them: what of the table goes into messages. Knows no connection."""

from __future__ import annotations

import msgspec

from mhnos_runtime.launch import ExitRecord
from mhnos_runtime.process.table import Process, ProcessTable
from mhnos_runtime.sandbox import Isolation
from mhnos_runtime.wire import messages as m
from mhnos_runtime.wire.faults import shorten

#: Of a process's command, and of its arguments, in a list: the list of all that are kept stays below a MiB or
#: two. `attached` has all of them.
LISTED_CHARACTERS = 1024


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
        isolation=isolation(facts.isolation) if facts.isolation is not None else msgspec.UNSET,
        ready=ready(process),
        ports=ports(process) or msgspec.UNSET,
        remove=facts.remove or msgspec.UNSET,
        linger_ms=facts.linger_ms,
        timeout_ms=facts.timeout_ms,
        limits=msgspec.UNSET
        if facts.limits is None
        else m.ProcessLimits(*msgspec.structs.astuple(facts.limits)),
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


def listed(process: Process) -> m.ProcessInfo:
    """For one of hundreds: without most of a long command line, and what few ask for."""
    info = describe(process)
    info.linger_ms = info.timeout_ms = info.limits = msgspec.UNSET
    left = LISTED_CHARACTERS
    info.command = shorten(info.command, left)
    for number, text in enumerate(info.args):
        left -= len(text) + 1
        if left < 0:
            info.args = [*info.args[:number], "…"]
            break
    return info


def exit_message(process: Process, record: ExitRecord) -> m.Exit:
    """What is told of a process that has ended so."""
    return m.Exit(
        pid=process.pid,
        code=record.code,
        signal=record.signal,
        runtime=record.runtime_ms,
        reason=record.reason,  # type: ignore[arg-type]  # the supervisor's reasons are the wire's
        cpu_ms=record.cpu_ms,
        max_rss_bytes=record.max_rss_bytes,
        bytes=record.bytes,
        evidence=record.evidence,
        failure=process.failure or msgspec.UNSET,
    )


def ready(process: Process) -> m.Readiness | msgspec.UnsetType:
    """Whether it serves, as clients see it."""
    known = process.facts.ready
    if known is None:
        return msgspec.UNSET
    return m.Readiness(known.state, known.reason or msgspec.UNSET)


def ports(process: Process) -> list[m.Port]:
    return [
        m.Port(port.name, port.port, port.address or None, port.url or msgspec.UNSET)
        for port in process.facts.ports
    ]


def isolation(given: Isolation) -> m.Isolation:
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


def stats(table: ProcessTable) -> m.ServerStats:
    return m.ServerStats(table.total_spawned, table.total_spawned - table.active, table.active)
