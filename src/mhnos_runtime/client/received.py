"""What a server's frames hold, and which request a message answers. Pure; knows no connection."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from mhnos_runtime.client.errors import ConnectFailed, ProtocolViolation, RequestFailed
from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.wire import frames
from mhnos_runtime.wire import messages as m
from mhnos_runtime.wire.parse import Unknown

Received: TypeAlias = m.ServerMessage | frames.DataFrame | Unknown


def unpack(data: bytes) -> frames.DataFrame:
    """One binary frame of a server. Raises ProtocolViolation."""
    try:
        frame = frames.unpack(data)
    except InvalidRequest as error:
        raise ProtocolViolation(error.message) from error
    if frame.kind == frames.INPUT:
        raise ProtocolViolation("a server sends no input")
    return frame


def greeting(url: str, subprotocol: str | None, first: Received | None) -> m.Connected:
    """The server's first message, as that of a runtime that speaks protocol 1.1; None: it closed the
    connection. Raises ConnectFailed."""
    if not isinstance(first, m.Connected):
        raise ConnectFailed(f"{url} did not greet as a runtime does", retry=first is None)
    if subprotocol != m.SUBPROTOCOL:
        raise ConnectFailed(
            f"{url} speaks only protocol {first.protocol_version}, this client needs 1.1", retry=False
        )
    return first


def failure(message: m.ErrorMessage) -> RequestFailed:
    """The server's error as an exception."""
    return RequestFailed(
        message.error,
        code=message.code if isinstance(message.code, str) else "internal",
        hint=message.hint if isinstance(message.hint, str) else "",
        retry=message.retry is True,
    )


def number(id_: object) -> int:
    """The request that a message answers, by its id; 0: none of ours."""
    try:
        return int(bytes(id_)) if isinstance(id_, msgspec.Raw) else 0
    except ValueError:
        return 0


def name(message: m.Message) -> str:
    """A message's type, for people."""
    return str(message.__struct_config__.tag)
