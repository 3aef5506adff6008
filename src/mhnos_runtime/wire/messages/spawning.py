"""To start a process: what a client may ask for, and what it is answered.

Knows shapes and units (docs/protocol.md is the reference); must not know what a server does with them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta, Raw

from mhnos_runtime import bounds
from mhnos_runtime.wire.messages.base import (
    MAX_INTEGER,
    Count,
    Message,
    Milliseconds,
    Name,
    Part,
    Path,
    ProcessName,
    Title,
    Word,
)
from mhnos_runtime.wire.messages.input import PtySize
from mhnos_runtime.wire.messages.processes import Isolation

PortName: TypeAlias = Annotated[str, Meta(max_length=bounds.PORT_NAME_CHARACTERS)]
PortNumber: TypeAlias = Annotated[int, Meta(ge=0, le=65535)]
_ITEMS = Meta(max_length=bounds.WORKER_ITEMS)


class SpawnOptions(Part):
    """`cwd`: a path in the workspace. `env`: on top of what every process gets. `timeout`: ms after which the
    process is ended; 0 or None: never."""

    cwd: Path | None = None
    env: dict[str, str] | None = None
    timeout: Annotated[float, Meta(ge=0, le=MAX_INTEGER)] | None = None


class SpawnLimits(Part):
    """Narrower than the server's own limits, which nothing here can widen. `memory_bytes`, `tasks` and
    `cpu_percent` (100: one CPU) are of the process with its descendants, the others of each of them. None and
    0: as the server has it."""

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

    bindings: Annotated[dict[Title, Raw], _ITEMS] = msgspec.field(default_factory=dict)
    environment: Annotated[list[Title], _ITEMS] = msgspec.field(default_factory=list)
    modules: Annotated[list[Path], _ITEMS] = msgspec.field(default_factory=list)
    compatibility_date: Word | None = None
    compatibility_flags: Annotated[list[Word], _ITEMS] = msgspec.field(default_factory=list)
    heap_mb: Annotated[int, Meta(ge=0, le=1 << 20)] = 0
    outbound: Literal["public", "none"] = "public"
    keep: Path | None = None


class Spawn(Message, tag="spawn"):
    """Start a process. `process_type`: its kind. `command`, `args`: as the kind takes them.

    `pty`: None for what the kind has, false for pipes, true for a terminal of the default size. `name`: what
    it can be called by, unique among processes that run. `attach`: whether this connection receives the
    output. `linger_ms`: end the process so many ms after its last client left; None: keep it. `key`: the same
    key with the same request answers with the same pid for as long as the process is kept. `acks`: as in
    Attach. `network`: "host", "loopback" or "none", where it is narrower than the server's. `ports`: numbers
    by name, 0 for any free one. `worker`: for workerd with a script. `remove`: its record and output go once
    it has ended and those who watch it have read that.
    """

    # 1.0 answers "Unknown process type: undefined" where there is none; no kind has this name.
    process_type: Word = "undefined"
    command: str = ""
    args: list[str] = msgspec.field(default_factory=list)
    options: SpawnOptions = msgspec.field(default_factory=SpawnOptions)
    pty: PtySize | bool | None = None
    name: ProcessName | None = None
    attach: bool = True
    linger_ms: Milliseconds | None = None
    key: Name | None = None
    network: Word | None = None
    limits: SpawnLimits | None = None
    acks: bool = False
    ports: Annotated[dict[PortName, PortNumber], Meta(max_length=bounds.PORTS)] | None = None
    worker: WorkerOptions | None = None
    remove: bool = False


class Plan(Spawn, tag="plan"):
    """Ask what a Spawn with the same fields would execute. Nothing is started."""


class WorkerConfig(Message, tag="workerConfig"):
    """Ask for the config that a Spawn of workerd with these fields would make. Nothing is started or
    written."""

    command: Path
    options: SpawnOptions = msgspec.field(default_factory=SpawnOptions)
    network: Word | None = None
    worker: WorkerOptions | None = None


class Spawned(Message, tag="spawned"):
    """The answer to Spawn. `pid`: the runtime's own number, from 1000 on, never used twice."""

    pid: int
    status: str = msgspec.field(default_factory=lambda: "success")


class Planned(Message, tag="planned"):
    """The answer to Plan. `plan`: what the supervisor would execute, for people: its fields change with
    versions. `directory`: where it would start, a path in the workspace. `isolation`: what the process would
    get."""

    plan: dict[str, Any]
    directory: str
    isolation: Isolation


class WorkerConfigText(Message, tag="workerConfigText"):
    """The answer to WorkerConfig. `config`: for workerd, in Cap'n Proto's text form."""

    config: str
