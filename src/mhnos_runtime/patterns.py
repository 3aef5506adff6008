"""Patterns that others bring, in RE2: linear time, whatever the pattern is. Knows RE2 and lines; not what is
searched."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from mhnos_runtime.errors import InvalidRequest, Unavailable

#: What a compiled pattern may use, bytes. RE2 falls back to a slower machine where its states need more.
MAX_PATTERN_MEMORY = 1 << 20
#: Instructions of a compiled pattern. The slower machine takes up to some 5 ns for each, for each byte: 0.5 s
#: for 64 KiB.
MAX_PROGRAM = 1500
#: What is shown of a longer line.
SHOWN_BYTES = 400

# In a block of lines they would be ends of the block.
_OF_A_WORD = re.compile(rb"[0-9A-Za-z_]")
_ENDS_OF_TEXT = re.compile(r"(?<!\\)(?:\\\\)*\\[AzZ]")


def engine() -> Any:
    """The module re2. Raises Unavailable where it is not installed."""
    try:
        import re2
    except ImportError as error:
        hint = "pip install google-re2, in the environment of the server"
        raise Unavailable("google-re2, which searches, is not installed", hint=hint) from error
    return re2


def compiled(pattern: str, *, fixed: bool, ignore_case: bool, word: bool = False) -> Any:
    """A pattern that matches inside of the lines of a block. `fixed`: it is a text. `word`: what matches
    begins and ends at the border of a word.

    Raises InvalidRequest (invalid-argument), and Unavailable where RE2 is not installed.
    """
    re2 = engine()
    if not fixed and _ENDS_OF_TEXT.search(pattern):
        raise InvalidRequest(r"pattern: \A and \z are not for lines", hint="use ^ and $")
    options = re2.Options()
    options.max_mem = MAX_PATTERN_MEMORY
    options.never_nl = options.never_capture = True
    options.log_errors = False
    options.case_sensitive = not ignore_case
    text = pattern.encode("utf-8", "replace")
    alone = re2.escape(text) if fixed else text
    # What an expression begins and ends with is not known: most are of words.
    ends = (text[:1], text[-1:]) if fixed else (b"a", b"a")
    whole = _as_word(alone, *ends) if word else alone
    try:
        re2.compile(alone, options)  # alone first: what is wrong with it is told in its own words
        made = re2.compile(b"(?m)" + whole, options)
    except re2.error as error:
        reason = error.args[0].decode("utf-8", "replace")
        hint = "the syntax is RE2's, without backreferences and look-around; `fixed` (-F) is for a text"
        raise InvalidRequest(f"pattern: {reason}", hint=hint) from None
    if made.programsize > MAX_PROGRAM:
        raise InvalidRequest(
            f"pattern: its program has {made.programsize} steps, and {MAX_PROGRAM} are allowed",
            hint="make its repetitions or classes smaller",
        )
    return made


def _as_word(expression: bytes, first: bytes, last: bytes) -> bytes:
    """With no character of a word beside what matches. first, last: bytes that it begins and ends with."""
    front, back = (rb"\b" if _OF_A_WORD.match(byte) else rb"\B" for byte in (first, last))
    return front + b"(?:" + expression + b")" + back


class Line(NamedTuple):
    """Where a line that matches is in its block: from `start` to `end`, without what ends it; what matched
    first in it is from `first` to `last`."""

    start: int
    end: int
    first: int
    last: int


def matching(pattern: Any, block: bytes, position: int = 0) -> Iterator[Line]:
    """The lines of a block that match, from a position on. pattern: as `compiled` gives it. A line ends as
    files of Unix, of Windows, or a terminal have it."""
    # Of the same length, so that positions stay; what seems an empty line in between is passed over.
    text = block.replace(b"\r\n", b"\n\n") if b"\r" in block else block
    while position < len(text):
        match = pattern.search(text, position)
        start = len(text) if match is None else text.rfind(b"\n", 0, match.start()) + 1
        if start >= len(text):
            return
        if start and block[start - 1 : start + 1] == b"\r\n":
            position = start + 1
            continue
        end = text.find(b"\n", match.start())
        end = len(text) if end < 0 else end
        yield Line(start, end, match.start(), match.end())
        position = end + 1


def parts(pattern: Any, block: bytes, line: Line) -> Iterator[tuple[int, int]]:
    """Where each part of a line is that matches, from the first one on. A part may be empty: a caller that
    drops such ones looks at its time all the same, since a line has as many as bytes."""
    text, first, last = block[line.start : line.end], line.first - line.start, line.last - line.start
    while True:
        yield line.start + first, line.start + last
        position = last if last > first else last + 1
        match = pattern.search(text, position) if position < len(text) else None
        if match is None:
            return
        first, last = match.start(), match.end()


def cut(line: bytes, start: int, end: int) -> str:
    """The line, or so much of it around what matched as is shown."""
    if len(line) <= SHOWN_BYTES:
        return line.decode("utf-8", "replace")
    room = max(0, SHOWN_BYTES - (end - start)) // 2
    first = max(0, min(start - room, len(line) - SHOWN_BYTES))
    last = min(len(line), first + SHOWN_BYTES)
    shown = line[first:last].decode("utf-8", "ignore")
    return f"{'…' if first else ''}{shown}{'…' if last < len(line) else ''}"
