"""Lone UTF-16 surrogates. JavaScript cuts strings between the halves of a pair; UTF-8 has no room for a half.

Knows JSON escapes and Python strings; must not know messages.
"""

from __future__ import annotations

import json
import re

# Backslashes occur only inside JSON strings, and each escape is consumed whole, so `\\ud83d` (an escaped
# backslash and four letters) is never taken for a surrogate. Group 1: a surrogate without its other half.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_MARK = b"\xff"  # stands for the backslash of a lone surrogate; no UTF-8 text contains this byte


def mark(document: bytes) -> bytes:
    r"""A JSON document with each lone `\uD8xx` made harmless, of the same length. Undone by `unmark`."""
    return _ESCAPE.sub(lambda found: _MARK + found[1] if found[1] else found[0], document)


def unmark(marked: bytes) -> bytes:
    """The document as it was."""
    return marked.replace(_MARK, b"\\")


def replace(marked: bytes) -> bytes:
    """The document with U+FFFD in the place of each lone surrogate."""
    return re.sub(_MARK + rb"u[0-9a-fA-F]{4}", rb"\\ufffd", marked)


def text_of(literal: bytes) -> str:
    """The string that a JSON string literal stands for, lone surrogates kept."""
    return str(json.loads(literal))


def is_high(character: str) -> bool:
    return "\ud800" <= character <= "\udbff"


def to_utf8(text: str) -> bytes:
    """UTF-8 of a text; halves that stand together are joined, a lone one becomes U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()
