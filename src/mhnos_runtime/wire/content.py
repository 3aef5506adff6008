"""File contents inside messages: JSON arrays of numbers or text to bytes and back, in bounded memory.

Knows JSON; must not know files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec
from msgspec import UNSET, Raw, UnsetType

from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.wire import surrogates

CHUNK_BYTES = 1 << 18  # of one step: 2 MiB as a list of numbers, some 10 ms

_numbers = msgspec.json.Decoder(list[int])
# Whole units of the inside of a JSON string. A high surrogate counts only with room for its other half behind
# it, so that a window never ends between the two.
_UNITS = re.compile(
    rb"(?:[^\\]++|\\[^u]|\\u(?![dD][89abAB])[0-9a-fA-F]{4}"
    rb"|\\u[dD][89abAB][0-9a-fA-F]{2}(?:\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?=.{6})))*+",
    re.DOTALL,
)
_ESCAPES = re.compile(rb"(?:\\u[0-9a-fA-F]{4})+|\\[^u]|\"", re.DOTALL)


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
        raise _wrong()


def numbers(data: bytes | bytearray | memoryview) -> Raw:
    """`data` as a JSON array of numbers."""
    view = memoryview(data)
    pieces = (view[start : start + CHUNK_BYTES] for start in range(0, len(view), CHUNK_BYTES))
    return Raw(b"[" + b",".join(msgspec.json.encode(list(piece))[1:-1] for piece in pieces) + b"]")


def _from_numbers(body: memoryview, chunk_bytes: int) -> Iterator[bytes]:
    window_chars = 2 * chunk_bytes + 64  # a number and its comma are at least two
    start = 0
    while start < len(body) or start == 0:
        window = bytes(body[start : start + window_chars])
        more = start + window_chars < len(body)
        if more:
            window = window[: window.rfind(b",") + 1]
        start += len(window) if more else window_chars
        yield _numbers_of(window.removesuffix(b",") if more else window, alone=len(window) == len(body))


def _numbers_of(window: bytes, *, alone: bool) -> bytes:
    try:
        values = _numbers.decode(b"[" + window + b"]")
        if not values and not alone:  # nothing between two commas
            raise _wrong()
        return bytes(values)
    except (ValueError, RecursionError):
        raise _wrong() from None


def _from_text(body: memoryview, chunk_bytes: int) -> Iterator[bytes]:
    start = 0
    while start < len(body):
        window = bytes(body[start : start + chunk_bytes])
        if start + len(window) < len(body):
            window = window[: _UNITS.match(window).end()]  # type: ignore[union-attr]  # it also matches nothing
        if not window:
            raise _wrong()
        start += len(window)
        yield _ESCAPES.sub(_unescaped, window)


def _unescaped(found: re.Match[bytes]) -> bytes:
    try:
        return surrogates.to_utf8(surrogates.text_of(b'"' + found[0] + b'"'))
    except ValueError:
        raise _wrong() from None


def _wrong() -> InvalidRequest:
    return InvalidRequest("content: expected an array of numbers 0..255 or a text", code="invalid-argument")
