"""File contents inside messages: JSON arrays of numbers or text to bytes and back, in bounded memory.

Knows JSON; must not know files.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator

import msgspec
from msgspec import UNSET, Raw, UnsetType

from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.wire.text import SurrogateJoiner

CHUNK_BYTES = 1 << 16  # of one step, which nothing can interrupt: some 2 ms, and 0.5 MiB as a list of numbers

_numbers = msgspec.json.Decoder(list[int])
_ESCAPE_CHARS = 6  # the longest: \uXXXX


def content_chunks(raw: Raw | UnsetType, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """The bytes that `content` of a FILE stands for, in pieces of about `chunk_bytes`.

    An array of numbers 0..255, a text (its UTF-8), or null or nothing (an empty file); `raw` is valid JSON.
    Raises InvalidRequest on anything else, when it comes to the piece that holds it.
    """
    if raw is UNSET:
        return
    view = memoryview(raw)
    first, last = bytes(view[:1]), bytes(view[-1:])
    if first == b"[" and last == b"]":
        yield from _from_numbers(view[1:-1], chunk_bytes)
    elif first == b'"' and last == b'"' and len(view) > 1:
        yield from _from_text(view[1:-1], chunk_bytes)
    elif bytes(view[:5]) not in (b"", b"null"):
        raise wrong_content()


def listed(data: bytes | memoryview) -> bytes:
    """`data` as numbers with commas between them: of one step, see CHUNK_BYTES."""
    return msgspec.json.encode(list(data))[1:-1]


def numbers(data: bytes | bytearray | memoryview) -> Raw:
    """`data` as a JSON array of numbers."""
    view = memoryview(data)
    pieces = (view[start : start + CHUNK_BYTES] for start in range(0, len(view), CHUNK_BYTES))
    return Raw(b"[" + b",".join(map(listed, pieces)) + b"]")


def _from_numbers(body: memoryview, chunk_bytes: int) -> Iterator[bytes]:
    window_chars = 2 * chunk_bytes + 64  # a number and its comma are at least two
    start = 0
    while start < len(body) or start == 0:
        window = bytes(body[start : start + window_chars])
        more = start + window_chars < len(body)
        if more:
            window = window[: window.rfind(b",") + 1]
        start += len(window) if more else window_chars
        yield numbers_of(window.removesuffix(b",") if more else window, alone=len(window) == len(body))


def numbers_of(window: bytes, *, alone: bool) -> bytes:
    """The bytes that a piece of an array's inside stands for; alone: there is no other, so it may be empty.
    Raises InvalidRequest."""
    try:
        values = _numbers.decode(b"[" + window + b"]")
        if not values and not alone:  # nothing between two commas
            raise wrong_content()
        return bytes(values)
    except (ValueError, RecursionError):
        raise wrong_content() from None


def _from_text(body: memoryview, chunk_bytes: int) -> Iterator[bytes]:
    text = TextContent()
    for start in range(0, len(body), chunk_bytes):
        yield text.feed(body[start : start + chunk_bytes])
    yield text.finish()


class TextContent:
    """UTF-8 of a JSON text whose inside comes in pieces. Each step keeps back what may be cut: a UTF-8
    character, an escape, half a surrogate pair. Raises InvalidRequest."""

    def __init__(self) -> None:
        self._utf_8 = codecs.getincrementaldecoder("utf-8")()
        self._joiner = SurrogateJoiner()
        self._rest = ""

    def feed(self, inside: bytes | memoryview) -> bytes:
        """UTF-8 of what is complete with this piece; the rest waits. Raises InvalidRequest."""
        try:
            text = self._rest + self._utf_8.decode(inside)
            end = _end_of_whole_escapes(text)
            self._rest = text[end:]
            return self._joiner.feed(_unescaped(text[:end]))
        except ValueError:
            raise wrong_content() from None

    def finish(self) -> bytes:
        """UTF-8 of what still waits. Raises InvalidRequest for half an escape or character."""
        try:
            last = _unescaped(self._rest + self._utf_8.decode(b"", final=True))
            return self._joiner.feed(last) + self._joiner.flush()
        except ValueError:
            raise wrong_content() from None


def _end_of_whole_escapes(text: str) -> int:
    last = text.rfind("\\", max(0, len(text) - _ESCAPE_CHARS + 1))
    run = last + 1 - len(text[: last + 1].rstrip("\\"))
    return last if run % 2 else len(text)  # an even run is escaped backslashes


def _unescaped(inside: str) -> str:
    return str(json.loads(f'"{inside}"'))


def wrong_content() -> InvalidRequest:
    """The error for content that is neither an array of bytes nor a text."""
    return InvalidRequest("content: expected an array of numbers 0..255 or a text", code="invalid-argument")
