"""What a server sends: bytes in; messages, frames of output, pings and goodbyes out. And which request a
message answers. Pure; knows no connection."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import msgspec

from mhnos_runtime.client.errors import ProtocolViolation, RequestFailed, request_failed
from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.wire import frames
from mhnos_runtime.wire import messages as m
from mhnos_runtime.wire import websocket as rfc
from mhnos_runtime.wire.answers import Unknown, parse_message

Received: TypeAlias = m.ServerMessage | frames.DataFrame | Unknown


class Ping(NamedTuple):
    """To be answered with the same payload."""

    payload: bytes


class Goodbye(NamedTuple):
    """To be answered with the same code; nothing comes after it."""

    code: int | None


class Inbound:
    """feed() what was received, then take next() until it is None."""

    def __init__(self) -> None:
        self._parser = rfc.Parser(None, _limit, m.MAX_MESSAGE_BYTES)
        self._parts: list[bytes] = []
        #: Bytes of the newest message
        self.size = 0

    def feed(self, data: bytes) -> None:
        self._parser.feed(data)

    def next(self) -> Received | Ping | Goodbye | None:
        """What has arrived next; None: more has to be fed. Raises ProtocolViolation, after which nothing may
        be called."""
        try:
            while (event := self._parser.next()) is not None:
                if (got := self._take(event)) is not None:
                    return got
        except rfc.Violation as violation:
            raise ProtocolViolation(f"the server broke the protocol: {violation}") from None
        return None

    def _take(self, event: rfc.Incoming) -> Received | Ping | Goodbye | None:
        payload = bytes(event.payload)
        if event.part:
            self._parts.append(payload)
            if not event.last:
                return None
            payload, self._parts = b"".join(self._parts), []
        self.size = len(payload)
        match event.opcode:
            case rfc.BINARY:
                return unpack(payload)
            case rfc.TEXT:
                return parse_message(payload)
            case rfc.PING:
                return Ping(payload)
            case rfc.CLOSE:
                return Goodbye(rfc.close_code(payload))
        return None


def _limit(binary: bool, _head: bytes) -> int:
    """Of a message: a text of any size that the protocol has; output comes in small frames."""
    return rfc.SMALL_MESSAGE_BYTES if binary else m.MAX_MESSAGE_BYTES


def unpack(data: bytes) -> frames.DataFrame:
    """One binary frame of a server. Raises ProtocolViolation."""
    try:
        frame = frames.unpack(data)
    except InvalidRequest as error:
        raise ProtocolViolation(error.message) from error
    if frame.kind == frames.INPUT:
        raise ProtocolViolation("a server sends no input")
    return frame


def failure(message: m.ErrorMessage) -> RequestFailed:
    """The server's error as an exception."""
    return request_failed(
        message.error,
        message.code if isinstance(message.code, str) else "internal",
        message.hint if isinstance(message.hint, str) else "",
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
