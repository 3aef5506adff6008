"""Every message of the protocol as a struct, and the bounds that belong to it.

Knows shapes and units (docs/protocol.md is the reference); must not know what a server does with them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from mhnos_runtime import bounds
from mhnos_runtime.wire.parts import (
    DEFAULT_COLS,
    DEFAULT_ROWS,
    MAX_CELLS,
    MAX_INTEGER,
    MAX_NAME,
    Cells,
    Count,
    ExitInfo,
    ExitReason,
    FileContent,
    FileEntry,
    FileFailure,
    Integer,
    Isolation,
    Limits,
    Milliseconds,
    Name,
    Offset,
    Part,
    Path,
    Port,
    PortName,
    PortNumber,
    ProcessInfo,
    ProcessStatus,
    ProcessUsage,
    PtySize,
    PushResults,
    Readiness,
    ReadyState,
    RequestId,
    ServerConfig,
    ServerStats,
    SpawnLimits,
    SpawnOptions,
    Stream,
    Title,
    Word,
    WorkerOptions,
)

PROTOCOL_VERSION = "1.0.0"  # what `connected.protocolVersion` says: clients of 1.0 compare it
PROTOCOL = "1.1"
SUBPROTOCOL = "mhnos.v1.1"
TOKEN_SUBPROTOCOL_PREFIX = "mhnos.token."  # never selected, never echoed

MAX_MESSAGE_BYTES = 128 << 20  # a 1.0 push of 5 files of 5 MB as arrays of numbers is 100 MB in one message
MAX_ID_BYTES = 4096  # an id is echoed in every answer; a counter or a UUID is what clients send


class Message(Part, kw_only=True, tag_field="type"):
    """What stands alone in a text frame. `id` is the requester's own JSON, kept byte for byte."""

    id: RequestId = UNSET


# Requests


class Spawn(Message, tag="spawn"):
    """`pty`: without it the choice of the kind, false for pipes, true for a terminal of the default size.

    `linger_ms`: end the process so many ms after its last client left; without it, keep it. `key`: the same
    key with the same request answers with the same pid for as long as the process is kept. `acks`: as in
    Attach. `network`: "host", "loopback" or "none", where it is narrower than the server's. `ports`: by name,
    0 for any free one. `worker`: for workerd with a script.
    """

    # 1.0 answers "Unknown process type: undefined" where there is none; no kind has this name.
    process_type: Word = "undefined"
    command: str = ""
    args: list[str] = msgspec.field(default_factory=list)
    options: SpawnOptions = msgspec.field(default_factory=SpawnOptions)
    pty: PtySize | bool | None = None
    name: Title | None = None
    attach: bool = True
    linger_ms: Milliseconds | None = None
    key: Name | None = None
    network: Word | None = None
    limits: SpawnLimits | None = None
    acks: bool = False
    ports: Annotated[dict[PortName, PortNumber], Meta(max_length=bounds.PORTS)] | None = None
    worker: WorkerOptions | None = None


class WorkerConfig(Message, tag="workerConfig"):
    """The config that `spawn` of workerd with these fields would make; nothing is started or kept."""

    command: Path
    options: SpawnOptions = msgspec.field(default_factory=SpawnOptions)
    network: Word | None = None
    worker: WorkerOptions | None = None


class Credentials(Message, tag="credentials"):
    """The token that the runtime made for a process, for who is to talk to it."""

    pid: Integer


class Plan(Spawn, tag="plan"):
    """What a Spawn with the same fields would execute, without doing it."""


class Attach(Message, tag="attach"):
    """Where to start: `from_` an offset, "start" (kept) or "end"; or `tail`, the last n bytes.

    `repaint`: have a full-screen program draw its screen anew, for a client that starts at the end. `acks`:
    the client holds what it has not acknowledged, from the first byte on.
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
    signal: Word = "SIGTERM"
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

    operation: Word = "undefined"  # as for Spawn.process_type: "Unknown operation: undefined"
    files: list[FileEntry] = msgspec.field(default_factory=list)


Request: TypeAlias = (
    Spawn
    | WorkerConfig
    | Credentials
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
    scopes: list[str] | UnsetType = UNSET


class Spawned(Message, tag="spawned"):
    pid: int
    status: str = msgspec.field(default_factory=lambda: "success")


class WorkerConfigText(Message, tag="workerConfigText"):
    config: str


class CredentialsAnswer(Message, tag="credentialsAnswer"):
    """`token`: null for a process that has none."""

    pid: int
    token: str | None


class Planned(Message, tag="planned"):
    """`plan`: what the supervisor would execute; `directory`: where to start, as a workspace path;
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
    they were typed; they countyped.
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
    """`results` after a push, `files` after a pull, `error` when `status` is "error". `errors`: what a pull
    left out, and why."""

    operation: str
    status: Literal["success", "error"]
    results: PushResults | UnsetType = UNSET
    files: list[FileEntry] | UnsetType = UNSET
    errors: list[FileFailure] | UnsetType = UNSET
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
    failure: str | UnsetType = UNSET


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


class Ready(Message, tag="ready"):
    """A process serves, or has failed to within its time. To connections of 1.1."""

    pid: int
    state: ReadyState
    reason: str | UnsetType = UNSET


class Ports(Message, tag="ports"):
    """Where a process can be reached, all of it. To connections of 1.1."""

    pid: int
    ports: list[Port]


class InputAck(Message, tag="inputAck"):
    """All input of this client below `next` was typed."""

    pid: int
    next: int


Answer: TypeAlias = (
    Connected
    | Spawned
    | WorkerConfigText
    | CredentialsAnswer
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
Event: TypeAlias = Stdout | Stderr | Exit | Gap | Replay | Ready | Ports | InputAck
ServerMessage: TypeAlias = Answer | Event
