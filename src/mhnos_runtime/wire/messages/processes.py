"""The processes that there are: their records, how they serve, how they end, and how a client ends them.

Knows shapes and units; must not know what a server does with them.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import UNSET, UnsetType

from mhnos_runtime.wire.messages.base import Handle, Message, Part, ProcessName, Word
from mhnos_runtime.wire.messages.input import PtySize
from mhnos_runtime.wire.messages.server import ServerStats

ProcessStatus: TypeAlias = Literal["starting", "running", "ending", "exited"]
ReadyState: TypeAlias = Literal["starting", "ready", "failed"]
ExitReason: TypeAlias = Literal["exit", "signal", "timeout", "memory", "killed", "idle", "lost"]


class Readiness(Part):
    """Whether a process serves. `reason`: why it failed."""

    state: ReadyState
    reason: str | UnsetType = UNSET


class Port(Part):
    """Where a process can be reached. `address`: on the server's machine; null when only the process's own
    network reaches it. `url`: where it is known to speak HTTP."""

    name: str
    port: int
    address: str | None
    url: str | UnsetType = UNSET


class Isolation(Part):
    """What a process really got. `uid`: on the host. `landlock`: its ABI, 0 for none. `limits`: what
    enforces those of `memory`, `tasks` and `cpu`: "cgroup v1", "cgroup v2", "rlimit", "watchdog" or "none".
    `host_abstract_sockets`: whether it reaches the machine's abstract Unix sockets."""

    level: str
    network: str
    uid: int
    namespaces: list[str]
    landlock: int
    seccomp: bool
    limits: dict[str, str]
    host_abstract_sockets: bool | UnsetType = UNSET


class ExitInfo(Part):
    """How a process ended: `code` or `signal` is null. `evidence`: how that is known, for people.
    `runtime_ms`, `cpu_ms`, `max_rss_bytes`: null where not known. `bytes`: of output in all. `end_time`:
    epoch ms. `failure`: "config" when the process found its configuration wrong before it served anything."""

    code: int | None
    signal: str | None
    reason: ExitReason
    evidence: str
    runtime_ms: int | None
    cpu_ms: int | None
    max_rss_bytes: int | None
    bytes: int
    end_time: int
    failure: str | UnsetType = UNSET


class ProcessLimits(Part):
    """The limits of one process, as in SpawnLimits; 0: none."""

    memory_bytes: int
    tasks: int
    cpu_percent: int
    cpu_seconds: int
    file_bytes: int
    open_files: int


class ProcessInfo(Part):
    """A process as lists show it. `start_time`: epoch ms. `cwd`: a path in the workspace. `pty`: null for
    pipes. `os_pid`: the system's number, null once it has ended. `first_offset`, `next_offset`: of the output
    that is kept for certain. `viewers`: connections that are attached. `sandbox`: the level that it really
    has. `remove`: its record goes at its end. Not in lists: `linger_ms` and `timeout_ms`, null for none, and
    `limits`."""

    pid: int
    type: str
    command: str
    args: list[str]
    start_time: int
    status: ProcessStatus
    name: str | UnsetType | None = UNSET
    cwd: str | UnsetType = UNSET
    pty: PtySize | UnsetType | None = UNSET
    os_pid: int | UnsetType | None = UNSET
    first_offset: int | UnsetType = UNSET
    next_offset: int | UnsetType = UNSET
    viewers: int | UnsetType = UNSET
    sandbox: str | UnsetType = UNSET
    isolation: Isolation | UnsetType = UNSET
    ready: Readiness | UnsetType = UNSET
    ports: list[Port] | UnsetType = UNSET
    remove: bool | UnsetType = UNSET
    linger_ms: int | UnsetType | None = UNSET
    timeout_ms: int | UnsetType | None = UNSET
    limits: ProcessLimits | UnsetType = UNSET
    exit: ExitInfo | UnsetType | None = UNSET


class ProcessUsage(Part):
    """What a process and its descendants use now. `cpu_ms`: ms of CPU time so far. `rss_bytes`: of memory.
    `tasks`: processes and threads. Null where the system does not say."""

    pid: int
    cpu_ms: int | None
    rss_bytes: int | None
    tasks: int | None


class List(Message, tag="list"):
    """The processes that there are; `all`: also ended ones that are still kept."""

    all: bool = False


class Stats(Message, tag="stats"):
    """What one process uses, or, without `pid`, each that has not ended."""

    pid: Handle | None = None


class Kill(Message, tag="kill"):
    """Send a signal to a process and all its descendants. `signal`: "SIGTERM", "TERM" or "15". `escalate`:
    follow it with SIGHUP and SIGKILL until nothing is left; None: so for SIGTERM, SIGKILL, SIGHUP and SIGQUIT
    alone."""

    pid: Handle
    signal: Word = "SIGTERM"
    escalate: bool | None = None


class Credentials(Message, tag="credentials"):
    """Ask for the token that the runtime made for a process, such as OpenClaw's."""

    pid: Handle


class Rename(Message, tag="rename"):
    """Give a process another name, or none."""

    pid: Handle
    name: ProcessName | None


class Inspect(Message, tag="inspect"):
    """Ask for everything that is known of one process."""

    pid: Handle


class Remove(Message, tag="remove"):
    """Forget an ended process, with its output."""

    pid: Handle


class ProcessList(Message, tag="processList"):
    """The answer to List."""

    processes: list[ProcessInfo]
    stats: ServerStats


class ProcessStats(Message, tag="processStats"):
    """The answer to Stats."""

    processes: list[ProcessUsage]


class Killed(Message, tag="killed"):
    """The answer to Kill: nothing of the process is left, or, without `escalate`, the signal was sent."""

    pid: int


class Renamed(Message, tag="renamed"):
    """The answer to Rename."""

    pid: int
    name: str | None


class Inspected(Message, tag="inspected"):
    """The answer to Inspect."""

    process: ProcessInfo


class Removed(Message, tag="removed"):
    """The answer to Remove: nobody finds the process any more."""

    pid: int


class CredentialsAnswer(Message, tag="credentialsAnswer"):
    """The answer to Credentials. `token`: null for a process that has none."""

    pid: int
    token: str | None


class Ready(Message, tag="ready"):
    """A process serves now, or was not ready in time, for `reason`. To connections of 1.1."""

    pid: int
    state: ReadyState
    reason: str | UnsetType = UNSET


class Ports(Message, tag="ports"):
    """All the addresses where a process can be reached. To connections of 1.1."""

    pid: int
    ports: list[Port]


class Exit(Message, tag="exit"):
    """How a process ended; comes after its last output. `runtime`, `cpu_ms`: ms. `bytes`: of output in all.
    The rest as in ExitInfo."""

    pid: int
    code: int | None
    signal: str | None
    runtime: int | None
    reason: ExitReason | UnsetType = UNSET
    cpu_ms: int | UnsetType | None = UNSET
    max_rss_bytes: int | UnsetType | None = UNSET
    bytes: int | UnsetType = UNSET
    evidence: str | UnsetType = UNSET
    failure: str | UnsetType = UNSET
