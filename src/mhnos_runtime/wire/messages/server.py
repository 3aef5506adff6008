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
    """`max_processes` is sent in `status`, not in `connected`."""

    workspace: str
    sandbox_mode: str
    allow_open_claw: bool
    max_processes: int | UnsetType = UNSET


class ServerStats(Part):
    """`total_killed` counts every process that has ended."""

    total_spawned: int
    total_killed: int
    active: int


class Limits(Part):
    max_message_bytes: int
    max_input_bytes: int
    max_processes: int
    retention_bytes: int


class Status(Message, tag="status"):
    pass


class Ping(Message, tag="ping"):
    pass


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


class StatusAnswer(Message, tag="status"):
    config: ServerConfig
    stats: ServerStats


class Pong(Message, tag="pong"):
    """`time`: epoch ms."""

    time: int


class ErrorMessage(Message, tag="error"):
    """`error`: text for people. `code`, `hint`, `retry`: as in errors.MhnosError."""

    error: str
    code: str | UnsetType = UNSET
    hint: str | UnsetType = UNSET
    retry: bool | UnsetType = UNSET
    pid: int | UnsetType = UNSET
