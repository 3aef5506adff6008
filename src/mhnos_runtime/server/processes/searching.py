"""Finds the lines of one process's output that match a pattern, in linear time whatever the pattern is.

Knows chunks of a log and RE2; no request, no event loop and no other process.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from mhnos_runtime.errors import InvalidRequest, Unavailable
from mhnos_runtime.output import Chunk

#: What a compiled pattern may use, bytes. RE2 falls back to a slower machine where its states need more.
MAX_PATTERN_MEMORY = 1 << 20
#: Instructions of a compiled pattern. The slower machine takes up to some 5 ns for each, for each byte: 0.5 s
#: for what is searched in one step.
MAX_PROGRAM = 1500
#: A longer line is searched in pieces of this size.
LINE_BYTES = 64 * 1024
#: What is shown of a longer line.
SHOWN_BYTES = 400

# In a block of lines they would be ends of the block.
_ENDS_OF_TEXT = re.compile(r"(?<!\\)(?:\\\\)*\\[AzZ]")


class Found(NamedTuple):
    """A line that matches; see SearchMatch."""

    offset: int
    stream: int
    time_ms: int
    line: str


def compiled(pattern: str, *, fixed: bool, ignore_case: bool) -> Any:
    """A pattern that matches inside of lines, for LineSearch.

    Raises InvalidRequest (invalid-argument), and Unavailable where RE2 is not installed.
    """
    try:
        import re2
    except ImportError as error:
        hint = "pip install google-re2, in the environment of the server"
        raise Unavailable("google-re2, which searches, is not installed", hint=hint) from error
    if not fixed and _ENDS_OF_TEXT.search(pattern):
        raise InvalidRequest(r"pattern: \A and \z are not for lines", hint="use ^ and $")
    options = re2.Options()
    options.max_mem = MAX_PATTERN_MEMORY
    options.never_nl = options.never_capture = True
    options.log_errors = False
    options.case_sensitive = not ignore_case
    text = pattern.encode("utf-8", "replace")
    text = re2.escape(text) if fixed else text
    try:
        re2.compile(text, options)  # alone first: what is wrong with it is told in its own words
        made = re2.compile(b"(?m)" + text, options)
    except re2.error as error:
        reason = error.args[0].decode("utf-8", "replace")
        hint = "the syntax is RE2's, without backreferences and look-around; fixed searches for a text"
        raise InvalidRequest(f"pattern: {reason}", hint=hint) from None
    if made.programsize > MAX_PROGRAM:
        raise InvalidRequest(
            f"pattern: its program has {made.programsize} steps, and {MAX_PROGRAM} are allowed",
            hint="make its repetitions or classes smaller",
        )
    return made


class _Lines:
    """What is to be searched of one stream. marks: (position in data, offset in the log, time) of its
    pieces."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.marks: list[tuple[int, int, int]] = []

    def add(self, chunk: Chunk) -> None:
        self.marks.append((len(self.data), chunk.offset, chunk.time_ms))
        self.data += chunk.data

    def where(self, position: int) -> tuple[int, int]:
        """Offset and time of a position."""
        at, offset, time_ms = self.marks[bisect_right(self.marks, (position, 1 << 62, 0)) - 1]
        return offset + position - at, time_ms

    def drop(self, count: int) -> None:
        if count < len(self.data):
            offset, time_ms = self.where(count)
            later = [(at - count, *rest) for at, *rest in self.marks if at > count]
            self.marks = [(0, offset, time_ms), *((at, offset, ms) for at, offset, ms in later)]
        else:
            self.marks = []
        del self.data[:count]


class LineSearch:
    """The search of one log from some offset on. left: matches, and bytes of lines, that may still be
    found."""

    def __init__(self, pattern: Any, left: int, left_bytes: int) -> None:
        self.left = left
        self.left_bytes = left_bytes
        self._pattern = pattern
        self._streams: dict[int, _Lines] = {}

    @property
    def full(self) -> bool:
        return self.left <= 0 or self.left_bytes <= 0

    def feed(self, chunks: Iterable[Chunk]) -> Iterator[Found | None]:
        """What is found in the next chunks; None where a step found nothing. A line is found once it is
        whole."""
        for chunk in chunks:
            self._streams.setdefault(chunk.stream, _Lines()).add(chunk)
        for stream, lines in self._streams.items():
            end = lines.data.rfind(b"\n") + 1
            if len(lines.data) - end >= LINE_BYTES:
                end = len(lines.data)
            yield from self._find(stream, lines, end)

    def end(self) -> Iterator[Found | None]:
        """What is found in lines without an end: nothing follows, or something is missing."""
        for stream, lines in self._streams.items():
            yield from self._find(stream, lines, len(lines.data))

    def _find(self, stream: int, lines: _Lines, end: int) -> Iterator[Found | None]:
        block = bytes(lines.data[:end])
        # Of the same length, so that positions stay; what seems an empty line in between is passed over.
        text = block.replace(b"\r\n", b"\n\n")
        position = 0
        while position < len(text) and not self.full:
            match = self._pattern.search(text, position)
            start = len(text) if match is None else text.rfind(b"\n", 0, match.start()) + 1
            if start >= len(text):
                break
            if start and block[start - 1 : start + 1] == b"\r\n":
                position = start + 1
                continue
            line_end = text.find(b"\n", match.start())
            line_end = len(text) if line_end < 0 else line_end
            shown = _cut(text[start:line_end], match.start() - start, match.end() - start)
            self.left -= 1
            self.left_bytes -= len(shown)
            offset, time_ms = lines.where(start)
            yield Found(offset, stream, time_ms, shown)
            position = line_end + 1
        lines.drop(end)
        yield None


def _cut(line: bytes, start: int, end: int) -> str:
    """The line, or so much of it around what matched as is shown."""
    if len(line) <= SHOWN_BYTES:
        return line.decode("utf-8", "replace")
    room = max(0, SHOWN_BYTES - (end - start)) // 2
    first = max(0, min(start - room, len(line) - SHOWN_BYTES))
    last = min(len(line), first + SHOWN_BYTES)
    shown = line[first:last].decode("utf-8", "ignore")
    return f"{'…' if first else ''}{shown}{'…' if last < len(line) else ''}"
