"""Values inside messages, and the bounds that belong to them.

Knows shapes and units (docs/protocol.md is the reference); must not know which message holds them.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from mhnos_runtime import bounds

MAX_INTEGER = bounds.MAX_INTEGER  # also bounds arithmetic on what clients send
MAX_CELLS = 2000  # columns or rows of a terminal: more than any screen, and small enough for every program
MAX_NAME = 128  # characters of a key or of a client's name: a UUID with something before it
DEFAULT_COLS = 100
DEFAULT_ROWS = 30

_CONTENT_SCHEMAS = [
    {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}},
    {"type": ["string", "null"]},
]
RequestId: TypeAlias = Raw | UnsetType
Integer: TypeAlias = Annotated[int, Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]
Offset: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]
Count: TypeAlias = Offset
Mtime: TypeAlias = Integer | Annotated[float, Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]
FileContent: TypeAlias = Annotated[Raw, Meta(extra_json_schema={"anyOf": _CONTENT_SCHEMAS})]
Cells: TypeAlias = Annotated[int, Meta(ge=1, le=MAX_CELLS)]
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
Title: TypeAlias = Annotated[str, Meta(max_length=bounds.NAME_CHARACTERS)]
Word: TypeAlias = Annotated[str, Meta(max_length=bounds.WORD_CHARACTERS)]
Path: TypeAlias = Annotated[str, Meta(max_length=bounds.PATH_CHARACTERS)]
PortName: TypeAlias = Annotated[str, Meta(max_length=bounds.PORT_NAME_CHARACTERS)]
Milliseconds: TypeAlias = Annotated[int, Meta(ge=0, le=bounds.MAX_MS)]
Stream: TypeAlias = Literal["stdout", "stderr"]
ProcessStatus: TypeAlias = Literal["starting", "running", "ending", "exited"]
ReadyState: TypeAlias = Literal["starting", "ready", "failed"]
PortNumber: TypeAlias = Annotated[int, Meta(ge=0, le=65535)]
ExitReason: TypeAlias = Literal["exit", "signal", "timeout", "memory", "killed", "idle", "lost"]


class Part(msgspec.Struct, rename="camel", omit_defaults=True):
    """A value inside a message. A field that holds its default is not sent."""


class PtySize(Part):
    cols: Cells
    rows: Cells


class SpawnOptions(Part):
    """`cwd`: a client's path. `timeout`: ms, 0 or None for no limit."""

    cwd: Path | None = None
    env: dict[str, str] | None = None
    timeout: Annotated[float, Meta(ge=0, le=MAX_INTEGER)] | None = None


class SpawnLimits(Part):
    """Narrower than the server's own, which nothing here can widen. Memory, tasks and CPU share (100: one
    CPU): of the process with its descendants; the rest of each of them. None and 0: as the server has it."""

    memory_bytes: Count | None = None
    tasks: Count | None = None
    cpu_percent: Count | None = None
    cpu_seconds: Count | None = None
    file_bytes: Count | None = None
    open_files: Count | None = None


class WorkerOptions(Part):
    """For the kind `workerd` with a script: what its config says. `bindings`: by name; a text is bound as
    text, everything else as JSON. `environment`: names of variables that are bound. `modules`: files beside
    the script that it imports. `heap_mb`: 0 for V8's own choice. `keep`: where in the workspace the config
    is to be written; without it, it is written nowhere."""

    bindings: Annotated[dict[Title, Raw], Meta(max_length=bounds.WORKER_ITEMS)] = {}
    environment: Annotated[list[Title], Meta(max_length=bounds.WORKER_ITEMS)] = []
    modules: Annotated[list[Path], Meta(max_length=bounds.WORKER_ITEMS)] = []
    compatibility_date: Word | None = None
    compatibility_flags: Annotated[list[Word], Meta(max_length=bounds.WORKER_ITEMS)] = []
    heap_mb: Annotated[int, Meta(ge=0, le=1 << 20)] = 0
    outbound: Literal["public", "none"] = "public"
    keep: Path | None = None


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
    """What a process really got. `uid`: on the host. `landlock`: its ABI, 0 for none. `limits`: for memory,
    tasks and cpu who enforces them: "cgroup v1", "cgroup v2", "rlimit", "watchdog" or "none".
    `host_abstract_sockets`: whether it reaches the machine's abstract Unix sockets."""

    level: str
    network: str
    uid: int
    namespaces: list[str]
    landlock: int
    seccomp: bool
    limits: dict[str, str]
    host_abstract_sockets: bool | UnsetType = UNSET


class FileEntry(Part):
    """`content` is not decoded here, see wire.content. `mtime`: epoch ms."""

    path: str
    kind: str = msgspec.field(default_factory=lambda: "file")  # a factory: always sent
    content: FileContent | UnsetType = UNSET
    mtime: Mtime | None = None


class ServerStats(Part):
    """`total_killed` counts every process that has ended."""

    total_spawned: int
    total_killed: int
    active: int


class ServerConfig(Part):
    """`max_processes` is sent in `status`, not in `connected`."""

    workspace: str
    sandbox_mode: str
    allow_open_claw: bool
    max_processes: int | UnsetType = UNSET


class Limits(Part):
    max_message_bytes: int
    max_input_bytes: int
    max_processes: int
    retention_bytes: int


class ExitInfo(Part):
    """How a process ended, and how that is known. `end_time`: epoch ms. Nothing is invented. `failure`:
    "config" when it found its configuration wrong, before it served anything."""

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


class ProcessInfo(Part):
    """One row of `processList`. `start_time`: epoch ms. Offsets are positions in the output log."""

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
    exit: ExitInfo | UnsetType | None = UNSET


class ProcessUsage(Part):
    """`tasks`: processes and threads in the tree. Null where the system does not say."""

    pid: int
    cpu_ms: int | None
    rss_bytes: int | None
    tasks: int | None


class FileFailure(Part):
    path: str
    error: str


class PushResults(Part):
    synced: int
    failed: int
    errors: list[FileFailure]
