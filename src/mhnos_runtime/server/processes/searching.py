"""Finds the lines of one process's output that match a pattern, in linear time whatever the pattern is.

Knows chunks of a log and RE2; no request, no event loop and no other process.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from mhnos_runtime.output import Chunk
from mhnos_runtime.patterns import cut, matching

#: A longer line is searched in pieces of this size.
LINE_BYTES = 64 * 1024


class Found(NamedTuple):
    """A line that matches; see SearchMatch."""

    offset: int
    stream: int
    time_ms: int
    line: str


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
        for line in matching(self._pattern, block) if not self.full else ():
            shown = cut(block[line.start : line.end], line.first - line.start, line.last - line.start)
            self.left -= 1
            self.left_bytes -= len(shown)
            offset, time_ms = lines.where(line.start)
            yield Found(offset, stream, time_ms, shown)
            if self.full:
                break
        lines.drop(end)
        yield None
