"""Lone UTF-16 surrogates. JavaScript cuts strings between the halves of a pair; UTF-8 has no room for a half.

Knows JSON escapes and Python strings; must not know messages.
"""

from __future__ import annotations

import json
import re

_HIDDEN = b"\xfe\xfe"  # stands for an escaped backslash meanwhile; no UTF-8 text contains this byte
_MARK = b"\xff"  # stands for the backslash of a lone surrogate; nor this one
_HIGH = rb"u[dD][89abAB][0-9a-fA-F]{2}"
_LOW = rb"u[dD][c-fC-F][0-9a-fA-F]{2}"
# The backslash of a high half without a low one behind it, or of a low half without a high one before it.
# It looks around instead of matching pairs, so that only halves cost something.
_LONE = re.compile(rb"\\(?=%b(?!\\%b))|(?<!\\%b)\\(?=%b)" % (_HIGH, _LOW, _HIGH, _LOW))
MAX_HALVES = 10_000  # in one message: each costs 0.3 us, and clients cut a text at its two ends only
_MARKED = re.compile(_MARK + rb"u[0-9a-fA-F]{4}")


def mark(document: bytes) -> bytes:
    r"""A JSON document with each lone `\uD8xx` made harmless, of the same length. Undone by `unmark`.
    Raises ValueError for more than MAX_HALVES.

    Backslashes occur only inside JSON strings, and a run of them begins with an escape, so that pairs from
    its start are the escaped ones.
    """
    hidden = document.replace(b"\\\\", _HIDDEN)
    marked, halves = _LONE.subn(_MARK, hidden, MAX_HALVES + 1)
    if halves > MAX_HALVES:
        raise ValueError(f"more than {MAX_HALVES} halves of surrogate pairs")
    return marked.replace(_HIDDEN, b"\\\\")


def unmark(marked: bytes) -> bytes:
    """The document as it was."""
    return marked.replace(_MARK, b"\\")


def replace(marked: bytes) -> bytes:
    """The document with U+FFFD in the place of each lone surrogate."""
    return _MARKED.sub(rb"\\ufffd", marked)


def text_of(literal: bytes) -> str:
    """The string that a JSON string literal stands for, lone surrogates kept."""
    return str(json.loads(literal))


def is_high(character: str) -> bool:
    """Whether it is the first half of a surrogate pair; False for an empty text."""
    return "\ud800" <= character <= "\udbff"


def to_utf8(text: str) -> bytes:
    """UTF-8 of a text; halves that stand together are joined, a lone one becomes U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()
