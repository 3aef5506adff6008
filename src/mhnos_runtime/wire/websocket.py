"""Frames of RFC 6455, for both sides: bytes in; messages, parts of large ones, control frames out; and back.

Pure: knows no socket, no event loop, and not what messages mean.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable
from typing import NamedTuple

from mhnos_runtime.wire.frames import HEADER_BYTES, MAX_INPUT_PAYLOAD_BYTES

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

#: What any message may have: the largest frame of input. What is to have more has to be worth it by its first
#: HEAD_BYTES.
SMALL_MESSAGE_BYTES = MAX_INPUT_PAYLOAD_BYTES + HEADER_BYTES
#: What is kept of a message that declares more than that, until `limit` has seen it.
HEAD_BYTES = 4096

# Close codes, RFC 6455, 7.4.1
NORMAL, GOING_AWAY, PROTOCOL_ERROR, INVALID_TEXT, TOO_BIG, INTERNAL_ERROR = 1000, 1001, 1002, 1007, 1009, 1011

MASK_BYTES = 4

_FINAL, _RESERVED, _OPCODE, _MASKED, _LENGTH = 0x80, 0x70, 0x0F, 0x80, 0x7F
_CONTROL = 0x8
_OPCODES = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))
_MAX_CONTROL_BYTES = 125
_CODE = struct.Struct("!H")
_MEDIUM, _LONG = struct.Struct("!H"), struct.Struct("!Q")
_SHORT_HEADER, _MEDIUM_HEADER, _LONG_HEADER = (
    struct.Struct("!BB"),
    struct.Struct("!BBH"),
    struct.Struct("!BBQ"),
)
#: What is masked at a time: a multiple of MASK_BYTES, and small enough for the caches of a CPU.
_MASKED_AT_ONCE_BYTES = 64 * 1024

Payload = bytes | bytearray


class Incoming(NamedTuple):
    """What has arrived: a message (opcode TEXT, valid UTF-8, or BINARY) or a control frame (CLOSE, PING,
    PONG).

    A message that may have more than SMALL_MESSAGE_BYTES comes in parts, as they arrive: joined, the payloads
    with opcode TEXT and BINARY up to one that is `last` are the message; a character may be cut between two.
    CONTINUATION, with no payload: a fragment of a message was taken that is not whole yet.
    """

    opcode: int
    payload: Payload
    part: bool = False
    last: bool = True


class Violation(Exception):
    """The peer broke the protocol. `code` is what the connection is to be closed with."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Parser:
    """feed() what was received, then take next() until it is None.

    unmask(mask, data) applies a mask of four bytes in place; with None it is the client's side, whose frames
    have no masks (RFC 6455, 5.1). No message has more than max_bytes; above
    SMALL_MESSAGE_BYTES, limit(binary, first HEAD_BYTES) is asked once for each message how many it may have;
    then it is handed out in parts, of which none is kept here.
    Between two calls it holds of what is not in a message yet at most one feed and one header.
    """

    def __init__(
        self,
        unmask: Callable[[bytes, bytearray], object] | None,
        limit: Callable[[bool, bytes], int],
        max_bytes: int,
    ) -> None:
        self._unmask = unmask
        self._mask_bytes = MASK_BYTES if unmask else 0
        self._limit = limit
        self._max_bytes = max_bytes
        self._data = b""
        self._at = 0
        self._closed = False
        # The frame whose payload is being received
        self._in_frame = False
        self._final = False
        self._opcode = CONTINUATION
        self._mask = b""
        self._left = 0
        # The message that it belongs to; CONTINUATION: there is none
        self._kind = CONTINUATION
        self._message: Payload = b""
        self._size = 0  # bytes of it so far, of which the last are in _message
        self._bound = 0
        self._asked = False
        self._text: codecs.IncrementalDecoder | None = None

    def feed(self, data: bytes) -> None:
        """Take bytes in. What follows a close frame is ignored (RFC 6455, 5.5.1)."""
        if self._closed:
            return
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0

    def next(self) -> Incoming | None:
        """What has arrived next; None: more has to be fed. Raises Violation, after which nothing may be
        called.

        Each call takes one frame at most, or one part of it.
        """
        while not self._closed:
            if not self._in_frame and not self._header():
                return None
            if self._opcode & _CONTROL:
                return self._control()
            if not self._take():
                return None
            self._in_frame = self._left > 0
            if self._final and not self._in_frame:
                return self._whole()
            if self._bound > SMALL_MESSAGE_BYTES:
                return self._part()
            if not self._in_frame:
                return Incoming(CONTINUATION, b"", last=False)
        return None

    # Headers: RFC 6455, 5.2

    def _header(self) -> bool:
        """Begin a frame, if its header is there. What is wrong with it shows in its first two bytes."""
        data, at = self._data, self._at
        if len(data) - at < 2:
            return False
        first, second = data[at], data[at + 1]
        self._check_header(first, second)
        length, end = second & _LENGTH, at + 2
        if length > _MAX_CONTROL_BYTES:
            form = _MEDIUM if length == _MAX_CONTROL_BYTES + 1 else _LONG
            end += form.size
            if len(data) < end:
                return False
            (length,) = form.unpack_from(data, at + 2)
            _check_length(length, form)
        payload_at = end + self._mask_bytes
        if len(data) < payload_at:
            return False
        self._mask = data[end:payload_at]
        self._at = payload_at
        self._left = length
        self._final = bool(first & _FINAL)
        self._opcode = first & _OPCODE
        self._in_frame = True
        if not self._opcode & _CONTROL:
            self._begin()
        return True

    def _check_header(self, first: int, second: int) -> None:
        opcode = first & _OPCODE
        if first & _RESERVED:
            raise Violation(PROTOCOL_ERROR, "a reserved bit is set")
        if opcode not in _OPCODES:
            raise Violation(PROTOCOL_ERROR, "an opcode that is reserved")
        if bool(second & _MASKED) != bool(self._mask_bytes):
            raise Violation(PROTOCOL_ERROR, "a client's frame without a mask, or a server's with one")
        if opcode & _CONTROL:
            if not first & _FINAL:
                raise Violation(PROTOCOL_ERROR, "a control frame in fragments")
            if second & _LENGTH > _MAX_CONTROL_BYTES:
                raise Violation(PROTOCOL_ERROR, "a control frame of more than 125 bytes")
        elif (opcode == CONTINUATION) == (self._kind == CONTINUATION):
            raise Violation(PROTOCOL_ERROR, "a fragment of no message, or a message inside of another")

    # Messages: RFC 6455, 5.4

    def _begin(self) -> None:
        """A frame of a message begins."""
        if self._opcode != CONTINUATION:
            self._kind = self._opcode
            self._size = 0
            self._bound = min(SMALL_MESSAGE_BYTES, self._max_bytes)
            self._asked = False
        if self._size + self._left > self._max_bytes:
            raise Violation(TOO_BIG, f"a message of more than {self._max_bytes} bytes")

    def _take(self) -> bool:
        """Take what is there of the frame's payload; False: there is nothing."""
        most = min(self._left, len(self._data) - self._at)
        if self._size + self._left > self._bound:
            most = self._ask(most)
        if most == 0:
            return self._left == 0
        piece = self._piece(most)
        self._left -= most
        self._size += most
        if self._left and self._mask:
            turned = most % MASK_BYTES
            self._mask = self._mask[turned:] + self._mask[:turned]
        if self._kind == TEXT:
            self._check_text(piece)
        if not self._message:
            self._message = piece
            return True
        if isinstance(self._message, bytes):
            self._message = bytearray(self._message)
        self._message += piece
        return True

    def _piece(self, size: int) -> Payload:
        """Take so many bytes of a payload, without their mask."""
        start, self._at = self._at, self._at + size
        if self._unmask is None:
            return self._data[start : self._at]
        piece = bytearray(memoryview(self._data)[start : self._at])
        self._unmask(self._mask, piece)
        return piece

    def _ask(self, most: int) -> int:
        """How much may be taken of a message that is to have more than its bound."""
        missing = HEAD_BYTES - self._size
        if not self._asked and missing > 0:
            return min(most, missing)
        if not self._asked:
            self._asked = True
            answer = self._limit(self._kind == BINARY, bytes(self._message[:HEAD_BYTES]))
            self._bound = min(answer, self._max_bytes)
        if self._size + self._left > self._bound:
            raise Violation(TOO_BIG, f"a message of more than {self._bound} bytes")
        return most

    def _check_text(self, piece: Payload) -> None:
        """As it arrives, so that a message that is no UTF-8 is not received for nothing (RFC 6455, 8.1)."""
        last = self._final and self._left == 0
        if self._text is None and last and piece.isascii():
            return
        if self._text is None:
            self._text = codecs.getincrementaldecoder("utf-8")()
        _decode(self._text, piece, last)

    def _whole(self) -> Incoming:
        opcode, message = self._kind, self._message
        if self._text is not None:
            # A last frame that is empty ends a character as well.
            _decode(self._text, b"", True)
        self._kind, self._message, self._text = CONTINUATION, b"", None
        return Incoming(opcode, bytes(message), part=self._bound > SMALL_MESSAGE_BYTES)

    def _part(self) -> Incoming:
        """What there is of a message that is handed out as it arrives."""
        message, self._message = self._message, b""
        return Incoming(self._kind, bytes(message), part=True, last=False)

    # Control frames: RFC 6455, 5.5

    def _control(self) -> Incoming | None:
        if len(self._data) < self._at + self._left:
            return None
        payload = self._piece(self._left)
        self._left, self._in_frame = 0, False
        if self._opcode == CLOSE:
            _check_close(payload)
            self._closed = True
            self._data, self._at, self._message = b"", 0, b""
        return Incoming(self._opcode, bytes(payload))


def pack_header(opcode: int, size: int, *, final: bool = True, mask: bytes = b"") -> bytes:
    """What stands before a payload of so many bytes. mask: MASK_BYTES of a client, none of a server."""
    first, bit = opcode | (_FINAL if final else 0), _MASKED if mask else 0
    if size <= _MAX_CONTROL_BYTES:
        return _SHORT_HEADER.pack(first, bit | size) + mask
    if size < 1 << 16:
        return _MEDIUM_HEADER.pack(first, bit | _MAX_CONTROL_BYTES + 1, size) + mask
    return _LONG_HEADER.pack(first, bit | _LENGTH, size) + mask


def pack_masked(opcode: int, payload: Payload, mask: bytes) -> bytes:
    """A message, or a control frame, as a client sends it. mask: MASK_BYTES that nobody can foresee."""
    return pack_header(opcode, len(payload), mask=mask) + apply_mask(mask, payload)


def apply_mask(mask: bytes, data: Payload) -> bytes:
    """RFC 6455, 5.3, by whole numbers: 1 MiB takes 3 ms, a loop over its bytes 50 ms."""
    view, pieces = memoryview(data), []
    for start in range(0, len(view), _MASKED_AT_ONCE_BYTES):
        piece = view[start : start + _MASKED_AT_ONCE_BYTES]
        size = len(piece)
        pattern = int.from_bytes((mask * (size // MASK_BYTES + 1))[:size], "little")
        pieces.append((int.from_bytes(piece, "little") ^ pattern).to_bytes(size, "little"))
    return b"".join(pieces)


def close_code(payload: Payload) -> int | None:
    """The code of a close frame; None: it has none."""
    return _CODE.unpack_from(payload)[0] if payload else None


def pack_close(code: int) -> bytes:
    """The payload of a close frame with this code and no reason."""
    return _CODE.pack(code)


def _check_length(length: int, form: struct.Struct) -> None:
    if length >> 63:
        raise Violation(PROTOCOL_ERROR, "a length of 2^63 or more")
    if length <= (_MAX_CONTROL_BYTES if form is _MEDIUM else 0xFFFF):
        raise Violation(PROTOCOL_ERROR, "a length that is not in its shortest form")


def _check_close(payload: Payload) -> None:
    if len(payload) == 1:
        raise Violation(PROTOCOL_ERROR, "a close frame of one byte")
    code = close_code(payload)
    if code is not None and not _may_be_sent(code):
        raise Violation(PROTOCOL_ERROR, "a close code that must not be sent")
    _decode(codecs.getincrementaldecoder("utf-8")(), payload[_CODE.size :], True)


def _may_be_sent(code: int) -> bool:
    """RFC 6455, 7.4, and what IANA's registry of close codes has added to it (1012 to 1014)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def _decode(decoder: codecs.IncrementalDecoder, data: bytes | bytearray, final: bool) -> None:
    try:
        decoder.decode(data, final)
    except UnicodeDecodeError as error:
        raise Violation(INVALID_TEXT, "text that is not UTF-8") from error
    begun, _ = decoder.getstate()
    if begun[:1] == b"\xed" and begun[1:] >= b"\xa0":
        # Half of a pair of surrogates: Python waits for its third byte before it says so.
        raise Violation(INVALID_TEXT, "text that is not UTF-8")
