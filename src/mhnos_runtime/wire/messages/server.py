"""The server itself: its greeting, its settings and counts, and what it says of a request that failed.

Knows shapes and units; must not know what a server does with them.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from mhnos_runtime.wire.messages.base import Message, Part

PROTOCOL_VERSION = "1.0.0"  # what `connected.protocolVersion` says: clients of 1.0 compare it
PROTOCOL = "1.1"
SUBPROTOCOL = "mhnos.v1.1"
TOKEN_SUBPROTOCOL_PREFIX = "mhnos.token."  # never selected, never echoed


class ServerConfig(Part):
    """Settings. `workspace`: its folder on the server. `max_processes`: sent in `status`, not in
    `connected`."""

    workspace: str
    sandbox_mode: str
    allow_open_claw: bool
    max_processes: int | UnsetType = UNSET


class ServerStats(Part):
    """Counts since the server's state began. `total_killed`: of all that have ended, however."""

    total_spawned: int
    total_killed: int
    active: int


class Limits(Part):
    """What this server takes and keeps. `max_processes`: at a time. `retention_bytes`: of each process's
    output."""

    max_message_bytes: int
    max_input_bytes: int
    max_processes: int
    retention_bytes: int


class Status(Message, tag="status"):
    """Ask for settings and counts."""


class Ping(Message, tag="ping"):
    """Ask for a sign of life."""


class Connected(Message, tag="connected"):
    """The server's first message. `server_id`: stays over a mere restart; a new one means that processes and
    offsets are gone. `scopes`: what the client's grant is for."""

    config: ServerConfig
    protocol_version: str = msgspec.field(default_factory=lambda: PROTOCOL_VERSION)  # a factory: always sent
    server_id: str | UnsetType = UNSET
    server_version: str | UnsetType = UNSET
    protocol: str | UnsetType = UNSET
    features: list[str] | UnsetType = UNSET
    limits: Limits | UnsetType = UNSET
    scopes: list[str] | UnsetType = UNSET


class StatusAnswer(Message, tag="status"):
    """The answer to Status."""

    config: ServerConfig
    stats: ServerStats


class Pong(Message, tag="pong"):
    """The answer to Ping. `time`: the server's clock, epoch ms."""

    time: int


class ErrorMessage(Message, tag="error"):
    """A request failed, or something that nobody asked for. `error`: for people. `code`: for programs.
    `hint`: the next step, for people. `retry`: whether the same request can succeed later, unchanged."""

    error: str
    code: str | UnsetType = UNSET
    hint: str | UnsetType = UNSET
    retry: bool | UnsetType = UNSET
    pid: int | UnsetType = UNSET
