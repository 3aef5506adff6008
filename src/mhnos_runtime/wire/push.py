"""A push that is larger than other messages may be, parsed as it arrives: JSON in pieces to files in pieces.

Knows the shape of fsync and JSON's grammar as far as it has to; must not know files or sockets.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import NamedTuple, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Raw

from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.wire import surrogates
from mhnos_runtime.wire.content import TextContent, numbers_of, wrong_content
from mhnos_runtime.wire.messages import MAX_ID_BYTES, Mtime, RequestId
from mhnos_runtime.wire.parse import WireError
from mhnos_runtime.wire.websocket import HEAD_BYTES, SMALL_MESSAGE_BYTES

MAX_VALUE_BYTES = 1 << 15  # of anything but content: a path of 4096 bytes, each of them escaped, is 24 KiB
MAX_TOKENS = 10_000  # brackets and quotes in one value that is passed over: each costs half a microsecond
WINDOW_BYTES = 1 << 16  # of content decoded in one step, which nothing can interrupt: less than a millisecond

_SPACE = re.compile(rb"[ \t\n\r]*+")
_SCALAR = re.compile(rb"[^ \t\n\r,:\[\]{}\"]*+")
_OUTSIDE = re.compile(rb"[^\"\[\]{}]*+")
_INSIDE = re.compile(rb"(?:[^\"\\]++|\\.)*+", re.DOTALL)  # of a text: up to its end, or to half an escape
_QUOTE, _BACKSLASH, _COMMA, _COLON = b'"\\,:'
_OPENING = b"[{"

_mtimes: msgspec.json.Decoder[float | None] = msgspec.json.Decoder(Mtime | None)
_values = msgspec.json.Decoder()


class FileBegin(NamedTuple):
    """A file begins. `path` and `kind` as in messages.FileEntry, not checked yet."""

    path: str
    kind: str


class FileEnd(NamedTuple):
    """A file is complete. `mtime_ms`: epoch. `error`: what is wrong with its content, or ""."""

    mtime_ms: float | None
    error: str


#: FileBegin, any number of bytes for its content, FileEnd; None: more has to be fed.
FilePiece: TypeAlias = FileBegin | bytes | FileEnd
_T = TypeVar("_T")
_Steps: TypeAlias = Generator[FilePiece | None, None, _T]


def check_head(head: bytes) -> RequestId:
    """The id of the message that begins with these bytes, UNSET if it is not in them. Raises WireError
    (too-large) unless the message may be large: its own `type`, not one nested in it, is "fsync"."""
    parser = PushParser()
    with suppress(WireError):
        for _ in parser.feed(head):
            pass
    if parser.type != "fsync":
        raise WireError(
            f"A message of more than {SMALL_MESSAGE_BYTES} bytes; only a push may be larger",
            code="too-large",
            hint=f'send it in parts; the type "fsync" of a push stands in its first {HEAD_BYTES} bytes',
            request_id=parser.request_id,
        )
    return parser.request_id


class PushParser:
    """feed() the message in pieces of any size; it gives what each of them completes.

    `type` and `operation` come before `files`, and in a file `path` and `kind` before `content`, or a
    WireError is raised, as for what is no JSON and no push. `request_id` is what is known of it by then.
    Holds one value of MAX_VALUE_BYTES, or one piece and a window of content.
    """

    def __init__(self) -> None:
        self.type = self.operation = ""
        self.request_id: RequestId = UNSET
        self._files = 0
        self._buffer = b""
        self._at = 0
        self._last = False
        self._steps = self._message()

    def feed(self, data: bytes, last: bool = False) -> Iterator[FilePiece]:
        """What `data` completes. Raises WireError; nothing may be fed after that."""
        self._buffer = self._buffer[self._at :] + data
        self._at, self._last = 0, last
        for event in self._steps:
            if event is None:
                return
            yield event

    # The message

    def _message(self) -> _Steps[None]:
        yield from self._expect(b"{")
        more = yield from self._opened(b"}")
        while more:
            key = yield from self._key()
            if key == "files":
                yield from self._entries()
            else:
                self._field(key, (yield from self._value()))
            more = yield from self._separated(b"}")
        yield from self._end()

    def _field(self, key: str, raw: bytes) -> None:
        if key == "type":
            self.type = self._text(key, raw)
        elif key == "operation":
            self.operation = self._text(key, raw)
        elif key == "id":
            if len(raw) > MAX_ID_BYTES:
                raise WireError(f"id: {len(raw)} bytes, {MAX_ID_BYTES} are allowed", code="too-large")
            self.request_id = Raw(raw)

    def _entries(self) -> _Steps[None]:
        if (self.type, self.operation) != ("fsync", "push"):
            raise self._wrong('type "fsync" and operation "push" come before files')
        if self._files:
            raise self._wrong("files: twice")
        yield from self._expect(b"[")
        more = yield from self._opened(b"]")
        while more:
            yield from self._entry()
            self._files += 1
            more = yield from self._separated(b"]")

    def _entry(self) -> _Steps[None]:
        path, kind, mtime, begun, error = None, "file", None, False, ""
        yield from self._expect(b"{")
        more = yield from self._opened(b"}")
        while more:
            key = yield from self._key()
            if key == "content":
                if path is None or begun:
                    raise self._wrong(f"{self._name(key)}: once, and behind path and kind")
                yield FileBegin(path, kind)
                begun, error = True, (yield from self._content())
            else:
                raw = yield from self._value()
                if key in ("path", "kind") and begun:
                    raise self._wrong(f"{self._name(key)}: expected before content")
                if key == "path":
                    path = self._text(self._name(key), raw)
                elif key == "kind":
                    kind = self._text(self._name(key), raw)
                elif key == "mtime":
                    mtime = self._mtime(raw)
            more = yield from self._separated(b"}")
        if path is None:
            raise self._wrong(f"{self._name('path')}: missing")
        if not begun:
            yield FileBegin(path, kind)
        yield FileEnd(mtime, error)

    def _name(self, key: str) -> str:
        return f"files[{self._files}].{key}"

    # Content

    def _content(self) -> _Steps[str]:
        """Give the bytes; return what is wrong with them, or ""."""
        first = yield from self._next()
        try:
            if first == b"[":
                yield from self._numbers()
            elif first == b'"':
                yield from self._characters()
            elif (yield from self._skip(0)) != b"null":
                raise wrong_content()
        except InvalidRequest as error:
            return error.message
        return ""

    def _numbers(self) -> _Steps[None]:
        """In windows that end behind a comma. All before `_at` was numbers, so what is wrong is passed over
        from there."""
        self._at += 1
        alone = True
        while True:
            end = self._buffer.find(b"]", self._at, self._at + WINDOW_BYTES)
            closed = end >= 0
            if not closed:
                if len(self._buffer) - self._at < WINDOW_BYTES:
                    yield from self._more()
                    continue
                end = self._buffer.rfind(b",", self._at, self._at + WINDOW_BYTES)
            try:
                data = numbers_of(self._buffer[self._at : max(end, self._at)], alone=alone and closed)
            except InvalidRequest:
                yield from self._skip(1)
                raise
            self._at, alone = end + 1, False
            yield data
            if closed:
                return

    def _characters(self) -> _Steps[None]:
        """A text that is wrong is passed over up to its end."""
        self._at += 1
        text, wrong = TextContent(), None
        while True:
            start = self._at
            self._at = _end(_INSIDE, self._buffer, start, start + WINDOW_BYTES)
            if wrong is None:
                try:
                    yield text.feed(self._buffer[start : self._at])
                except InvalidRequest as error:
                    wrong = error
            if self._at + 1 < len(self._buffer) or self._buffer[self._at : self._at + 1] == b'"':
                if self._buffer[self._at] == _QUOTE:
                    break
            else:
                yield from self._more()
        self._at += 1
        if wrong is not None:
            raise wrong
        yield text.finish()

    # JSON

    def _more(self) -> _Steps[None]:
        if self._last:
            raise self._broken()
        yield None

    def _next(self) -> _Steps[bytes]:
        """The next byte that is no space; it is not taken."""
        while True:
            self._at = _end(_SPACE, self._buffer, self._at)
            if self._at < len(self._buffer):
                return self._buffer[self._at : self._at + 1]
            yield from self._more()

    def _expect(self, byte: bytes) -> _Steps[None]:
        if (yield from self._next()) != byte:
            raise self._broken()
        self._at += 1

    def _opened(self, closing: bytes) -> _Steps[bool]:
        """Behind an opening bracket: whether something comes before the closing one."""
        empty = (yield from self._next()) == closing
        self._at += empty
        return not empty

    def _separated(self, closing: bytes) -> _Steps[bool]:
        """Behind a value: whether another one comes."""
        byte = yield from self._next()
        if byte not in (b",", closing):
            raise self._broken()
        self._at += 1
        return byte != closing

    def _key(self) -> _Steps[str]:
        if (yield from self._next()) != b'"':
            raise self._broken()
        key = self._text("a key", (yield from self._value()))
        yield from self._expect(b":")
        return key

    def _end(self) -> _Steps[None]:
        while True:
            self._at = _end(_SPACE, self._buffer, self._at)
            if self._at < len(self._buffer):
                raise self._broken()
            if self._last:
                return
            yield None

    def _value(self) -> _Steps[bytes]:
        """One value, whole."""
        raw = yield from self._skip(0)
        if len(raw) > MAX_VALUE_BYTES:
            raise self._wrong(f"a value of more than {MAX_VALUE_BYTES} bytes that is no content", "too-large")
        return raw

    def _skip(self, depth: int) -> _Steps[bytes]:
        """Pass over a value, or over the rest of one, `depth` brackets deep in it, and return its beginning.
        Of a value that is of no use only the brackets are looked at."""
        kept, tokens, inside = bytearray(), 0, False
        if not depth and (yield from self._next()) not in (b'"', b"[", b"{"):
            return (yield from self._scalar())
        while True:
            start = self._at
            self._at = _end(_INSIDE if inside else _OUTSIDE, self._buffer, start)
            kept += self._buffer[start : min(self._at, start + MAX_VALUE_BYTES + 1 - len(kept))]
            byte = self._buffer[self._at] if self._at < len(self._buffer) else _BACKSLASH
            if (inside and byte == _BACKSLASH) or self._at >= len(self._buffer):
                yield from self._more()
                continue
            self._at += 1
            tokens += 1
            if len(kept) <= MAX_VALUE_BYTES:
                kept.append(byte)
            if tokens > MAX_TOKENS:
                raise self._wrong(f"a value with more than {MAX_TOKENS} brackets and quotes", "too-large")
            if byte == _QUOTE:
                inside = not inside
            else:
                depth += 1 if byte in _OPENING else -1
            if depth == 0 and not inside:
                return bytes(kept)

    def _scalar(self) -> _Steps[bytes]:
        kept = b""
        while True:
            start = self._at
            self._at = _end(_SCALAR, self._buffer, start)
            kept = (kept + self._buffer[start : self._at])[: MAX_VALUE_BYTES + 1]
            if self._at < len(self._buffer):
                if not kept:
                    raise self._broken()
                return kept
            yield from self._more()

    def _text(self, name: str, raw: bytes) -> str:
        try:
            _values.decode(surrogates.replace(surrogates.mark(raw)))
            text = surrogates.text_of(raw)
        except (ValueError, RecursionError):
            raise self._broken() from None
        if raw[:1] != b'"':
            raise self._wrong(f"{name}: expected a text")
        return surrogates.to_utf8(text).decode()

    def _mtime(self, raw: bytes) -> float | None:
        try:
            return _mtimes.decode(raw)
        except (ValueError, RecursionError):
            raise self._wrong(f"{self._name('mtime')}: expected a number of milliseconds") from None

    def _broken(self) -> WireError:
        return WireError("Invalid message format")

    def _wrong(self, text: str, code: str = "invalid-argument") -> WireError:
        return WireError(f"Invalid argument: {text}", code=code, request_id=self.request_id)


def _end(pattern: re.Pattern[bytes], data: bytes, start: int, limit: int | None = None) -> int:
    """Where a pattern that fits to anything stops to fit."""
    found = pattern.match(data, start, len(data) if limit is None else limit)
    return found.end() if found is not None else start
