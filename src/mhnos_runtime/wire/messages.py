"""Every message of the protocol as a struct, and the bounds that belong to it.

Knows shapes and units (docs/protocol.md is the reference); must not know what a server does with them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

PROTOCOL_VERSION = "1.0.0"  # what `connected.protocolVersion` says: clients of 1.0 compare it
PROTOCOL = "1.1"
SUBPROTOCOL = "mhnos.v1.1"
TOKEN_SUBPROTOCOL_PREFIX = "mhnos.token."  # never selected, never echoed

MAX_MESSAGE_BYTES = 128 << 20  # a 1.0 push of 5 files of 5 MB as arrays of numbers is 100 MB in one message
MAX_ID_BYTES = 4096  # an id is echoed in every answer; a counter or a UUID is what clients send
MAX_INTEGER = (
    2**53 - 1
)  # the largest that JavaScript counts exactly; also bounds arithmetic on what clients send
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
FileContent: TypeAlias = Annotated[Raw, Meta(extra_json_schema={"anyOf": _CONTENT_SCHEMAS})]
Cells: TypeAlias = Annotated[int, Meta(ge=1, le=MAX_CELLS)]
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
Stream: TypeAlias = Literal["stdout", "stderr"]
ProcessStatus: TypeAlias = Literal["starting", "running", "ending", "exited"]
ExitReason: TypeAlias = Literal["exit", "signal", "timeout", "memory", "killed", "idle", "lost"]


class Part(msgspec.Struct, rename="camel", omit_defaults=True):
    """A value inside a message. A field that holds its default is not sent."""


class Message(Part, kw_only=True, tag_field="type"):
    """What stands alone in a text frame. `id` is the requester's own JSON, kept byte for byte."""

    id: RequestId = UNSET


# Parts


class PtySize(Part):
    cols: Cells
    rows: Cells


class SpawnOptions(Part):
    """`cwd`: a client's path. `timeout`: ms, 0 or None for no limit."""

    cwd: str | None = None
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


class Isolation(Part):
    """What a process really got. `uid`: on the host. `landlock`: its ABI, 0 for none. `limits`: for memory,
    tasks and cpu who enforces them: "cgroup v1", "cgroup v2", "rlimit", "watchdog" or "none"."""

    level: str
    network: str
    uid: int
    namespaces: list[str]
    landlock: int
    seccomp: bool
    limits: dict[str, str]


class FileEntry(Part):
    """`content` is not decoded here, see wire.content. `mtime`: epoch ms."""

    path: str
    kind: str = msgspec.field(default_factory=lambda: "file")  # a factory: always sent
    content: FileContent | UnsetType = UNSET
    mtime: Integer | Annotated[float, Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)] | None = None


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
    """How a process ended, and how that is known. `end_time`: epoch ms. Nothing is invented."""

    code: int | None
    signal: str | None
    reason: ExitReason
    evidence: str
    runtime_ms: int | None
    cpu_ms: int | None
    max_rss_bytes: int | None
    bytes: int
    end_time: int


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


# Requests


class Spawn(Message, tag="spawn"):
    """`pty`: without it the choice of the kind, false for pipes, true for a terminal of the default size.

    `linger_ms`: end the process so many ms after its last client left; without it, keep it. `key`: the same
    key with the same request answers with the same pid for as long as the process is kept. `acks`: as in
    Attach. `network`: "host", "loopback" or "none", where it is narrower than the server's.
    """

    # 1.0 answers "Unknown process type: undefined" where there is none; no kind has this name.
    process_type: str = "undefined"
    command: str = ""
    args: list[str] = []
    options: SpawnOptions = msgspec.field(default_factory=SpawnOptions)
    pty: PtySize | bool | None = None
    name: str | None = None
    attach: bool = True
    linger_ms: Count | None = None
    key: Name | None = None
    network: str | None = None
    limits: SpawnLimits | None = None
    acks: bool = False


class Plan(Spawn, tag="plan"):
    """What a Spawn with the same fields would execute, without doing it."""


class Attach(Message, tag="attach"):
    """Where to start: `from_` an offset, "start" (kept) or "end"; or `tail`, the last n bytes.

    `repaint`: have a full-screen program draw its screen anew, for a client that starts at the end. `acks`:
    the client's place is what it acknowledges, from the first byte on.
    """

    pid: Integer
    from_: Offset | Literal["start", "end"] | None = msgspec.field(name="from", default=None)
    tail: Count | None = None
    repaint: bool = False
    acks: bool = False


class Detach(Message, tag="detach"):
    pid: Integer


class Write(Message, tag="write"):
    """`data` may hold lone surrogates (JavaScript sends halves of pairs): give it to text.SurrogateJoiner."""

    pid: Integer
    data: str


class CloseStdin(Message, tag="closeStdin"):
    pid: Integer


class OpenInput(Message, tag="openInput"):
    """Begin, or go on, to number what a client types into a process. `client`: its own name, for always."""

    pid: Integer
    client: Name


class Resize(Message, tag="resize"):
    pid: Integer
    cols: Cells
    rows: Cells


class Kill(Message, tag="kill"):
    """`escalate`: by default for SIGTERM, SIGKILL, SIGHUP and SIGQUIT, and for no other signal."""

    pid: Integer
    signal: str = "SIGTERM"
    escalate: bool | None = None


class List(Message, tag="list"):
    all: bool = False


class Status(Message, tag="status"):
    pass


class Ping(Message, tag="ping"):
    pass


class Stats(Message, tag="stats"):
    pid: Integer | None = None


class Ack(Message, tag="ack"):
    """Everything below `offset` was consumed."""

    pid: Integer
    offset: Offset


class Fsync(Message, tag="fsync"):
    """`operation`: push or pull; others are answered, so they are not refused here."""

    operation: str = "undefined"  # as for Spawn.process_type: "Unknown operation: undefined"
    files: list[FileEntry] = []


Request: TypeAlias = (
    Spawn
    | Plan
    | Attach
    | Detach
    | Write
    | CloseStdin
    | OpenInput
    | Resize
    | Kill
    | List
    | Status
    | Ping
    | Stats
    | Ack
    | Fsync
)


# Answers


class Connected(Message, tag="connected"):
    """The server's first message. `server_id` stays over a mere restart and is new when state was lost."""

    config: ServerConfig
    protocol_version: str = msgspec.field(default_factory=lambda: PROTOCOL_VERSION)  # a factory: always sent
    server_id: str | UnsetType = UNSET
    server_version: str | UnsetType = UNSET
    protocol: str | UnsetType = UNSET
    features: list[str] | UnsetType = UNSET
    limits: Limits | UnsetType = UNSET


class Spawned(Message, tag="spawned"):
    pid: int
    status: str = msgspec.field(default_factory=lambda: "success")


class Planned(Message, tag="planned"):
    """`plan`: what the supervisor would be told; `directory`: where to start, as a workspace path;
    `isolation`: what the process would get."""

    plan: dict[str, Any]
    directory: str
    isolation: Isolation


class Attached(Message, tag="attached"):
    """`from_`: offset of the first byte sent; `next`: head of the log at that moment."""

    pid: int
    status: ProcessStatus
    from_: int | UnsetType = msgspec.field(name="from", default=UNSET)
    next: int | UnsetType = UNSET
    process: ProcessInfo | UnsetType = UNSET


class Detached(Message, tag="detached"):
    pid: int


class StdinClosed(Message, tag="stdinClosed"):
    pid: int


class InputOpened(Message, tag="inputOpened"):
    """`next`: the first byte that was not typed yet.

    `uncertain_from`: a server was killed while it typed the bytes from here up to `next`. Nobody knows if
    they were typed; they count as typed.
    """

    pid: int
    next: int
    uncertain_from: int | UnsetType = UNSET


class Killed(Message, tag="killed"):
    pid: int


class ProcessList(Message, tag="processList"):
    processes: list[ProcessInfo]
    stats: ServerStats


class StatusAnswer(Message, tag="status"):
    config: ServerConfig
    stats: ServerStats


class Pong(Message, tag="pong"):
    """`time`: epoch ms."""

    time: int


class ProcessStats(Message, tag="processStats"):
    processes: list[ProcessUsage]


class FsyncResult(Message, tag="fsyncResult"):
    """`results` after a push, `files` after a pull, `error` when `status` is "error"."""

    operation: str
    status: Literal["success", "error"]
    results: PushResults | UnsetType = UNSET
    files: list[FileEntry] | UnsetType = UNSET
    error: str | UnsetType = UNSET


class ErrorMessage(Message, tag="error"):
    """`error`: text for people. `code`, `hint`, `retry`: as in errors.MhnosError."""

    error: str
    code: str | UnsetType = UNSET
    hint: str | UnsetType = UNSET
    retry: bool | UnsetType = UNSET
    pid: int | UnsetType = UNSET


# Events: sent unasked


class Output(Message):
    """`offset`: of the first byte read for this frame, `next`: after the last. `timestamp`: epoch ms."""

    pid: int
    data: str
    offset: int | UnsetType = UNSET
    next: int | UnsetType = UNSET
    timestamp: int | UnsetType = UNSET

    @property
    def stream(self) -> Stream:
        return "stderr" if isinstance(self, Stderr) else "stdout"


class Stdout(Output, tag="stdout"):
    pass


class Stderr(Output, tag="stderr"):
    pass


class Exit(Message, tag="exit"):
    """`runtime`: ms. Comes after the last output."""

    pid: int
    code: int | None
    signal: str | None
    runtime: int | None
    reason: ExitReason | UnsetType = UNSET
    cpu_ms: int | UnsetType | None = UNSET
    max_rss_bytes: int | UnsetType | None = UNSET
    bytes: int | UnsetType = UNSET
    evidence: str | UnsetType = UNSET


class Gap(Message, tag="gap"):
    """The bytes from `from_` up to `to` (exclusive) are no longer kept."""

    pid: int
    from_: int = msgspec.field(name="from")
    to: int


class Replay(Message, tag="replay"):
    """What follows from `from_` up to `to` was written before the attach: a terminal must not answer it."""

    pid: int
    from_: int = msgspec.field(name="from")
    to: int


class InputAck(Message, tag="inputAck"):
    """All input of this client below `next` was typed."""

    pid: int
    next: int


Answer: TypeAlias = (
    Connected
    | Spawned
    | Planned
    | Attached
    | Detached
    | StdinClosed
    | InputOpened
    | Killed
    | ProcessList
    | StatusAnswer
    | Pong
    | ProcessStats
    | FsyncResult
    | ErrorMessage
)
Event: TypeAlias = Stdout | Stderr | Exit | Gap | Replay | InputAck
ServerMessage: TypeAlias = Answer | Event
