"""Binary data frames: a fixed header and raw bytes. Knows the layout; must not know senders."""

from __future__ import annotations

import struct
from typing import NamedTuple

from mhnos_runtime.errors import InvalidRequest

STDOUT = 1
STDERR = 2
INPUT = 3
REPLAY = 0x01  # flag of output: written before the attach that made the server send it
NUMBERED = 0x02  # flag of input: offset counts what this client has typed, see openInput

MAX_OUTPUT_PAYLOAD_BYTES = 64 << 10  # one drained read: larger frames would keep other processes waiting
MAX_INPUT_PAYLOAD_BYTES = 1 << 20  # a large paste; more comes in several frames

_HEADER = struct.Struct(">BBHIQ")  # kind, flags, reserved, pid, offset
HEADER_BYTES = _HEADER.size


class DataFrame(NamedTuple):
    """`offset`: of the first payload byte, in the output log or in numbered input. `payload`: a view."""

    kind: int
    flags: int
    pid: int
    offset: int
    payload: memoryview


def pack_header(kind: int, flags: int, pid: int, offset: int) -> bytes:
    """The 16 bytes that stand before the payload. Raises struct.error for what does not fit."""
    return _HEADER.pack(kind, flags, 0, pid, offset)


def unpack(frame: bytes | bytearray | memoryview) -> DataFrame:
    """Split one frame. Raises InvalidRequest (invalid-message; too-large for the payload)."""
    if len(frame) < HEADER_BYTES:
        raise _invalid(f"a binary frame has a header of {HEADER_BYTES} bytes, got {len(frame)} bytes")
    view = memoryview(frame)
    kind, flags, reserved, pid, offset = _HEADER.unpack_from(view)
    if kind not in (STDOUT, STDERR, INPUT):
        raise _invalid(f"unknown kind of binary frame: {kind}")
    allowed = NUMBERED if kind == INPUT else REPLAY
    if reserved or flags & ~allowed or (kind == INPUT and offset and not flags):
        raise _invalid("a reserved field of the binary frame is not 0")
    payload = view[HEADER_BYTES:]
    limit = MAX_INPUT_PAYLOAD_BYTES if kind == INPUT else MAX_OUTPUT_PAYLOAD_BYTES
    if len(payload) > limit:
        raise InvalidRequest(
            f"{len(payload)} bytes in one binary frame, {limit} are allowed",
            code="too-large",
            hint="send it in several frames",
        )
    return DataFrame(kind, flags, pid, offset, payload)


def _invalid(text: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid message format: {text}", code="invalid-message")
