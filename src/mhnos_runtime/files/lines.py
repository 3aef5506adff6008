"""The lines of one file that match a pattern, while the file comes in blocks. Knows bytes only; opens
nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple

from mhnos_runtime.patterns import Line, cut, matching, parts

LINE_BYTES = 64 * 1024
"""A longer line is searched in pieces of this size: a pattern may be slow, and no line takes all memory."""

OVERLAP_BYTES = 1024
"""What two pieces of such a line have in common: a longer match may be missed at their border."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Told(NamedTuple):
    """What is told of lines that match. parts: each part that matches, and not the line. before, after: how
    many lines around it, too."""

    parts: bool = False
    before: int = 0
    after: int = 0


LINES = Told()


class FoundLine(NamedTuple):
    """number: from 1. column: bytes of the line in front of what matched, None where nothing in it has to.
    text: as it is shown."""

    number: int
    column: int | None
    text: str


class FileLines:
    """Lines that match, each once. Feed it the file in blocks, then tell it the end. None stands for a part
    without bytes, which is not told: there may be many."""

    def __init__(self, pattern: Any, told: Told = LINES) -> None:
        self._pattern = pattern
        self._parts = told.parts
        self._around = _Around(told.before, told.after)
        # What has been fed of a line whose end has not, but for so many bytes of it that have been searched.
        self._rest, self._dropped = b"", 0
        self._number = 1
        # That line has been told, and is passed over.
        self._told = False
        self._begun = False

    def feed(self, block: bytes) -> Iterator[FoundLine | None]:
        if not self._begun:
            self._begun, block = True, block.removeprefix(BYTE_ORDER_MARK)
        if self._told:
            block = self._behind(block)
        data = self._rest + block
        end = data.rfind(b"\n") + 1
        if end:
            self._rest = data[end:]
            yield from self._whole(data[:end])
        elif len(data) >= LINE_BYTES:
            yield from self._piece(data)
        else:
            self._rest = data

    def end(self) -> Iterator[FoundLine | None]:
        """Of a last line that has no end."""
        yield from self._whole(self._rest)

    def _behind(self, block: bytes) -> bytes:
        """What comes after the line that is passed over."""
        end = block.find(b"\n") + 1
        if not end:
            return b""
        self._told, self._dropped = False, 0
        self._number += 1
        return block[end:]

    def _whole(self, data: bytes) -> Iterator[FoundLine | None]:
        position = 0
        for line in matching(self._pattern, data, self._start):
            yield from self._others(data, position, line.start)
            yield from self._around.before()
            yield from self._of(data, line, 0 if line.start else self._dropped)
            position = data.find(b"\n", line.end) + 1 or len(data)
            self._number += data.count(b"\n", line.end, position)
        yield from self._others(data, position, len(data))
        self._dropped = 0

    def _piece(self, data: bytes) -> Iterator[FoundLine | None]:
        searched = len(data) - OVERLAP_BYTES
        for line in matching(self._pattern, data, self._start):
            yield from self._around.before()
            end = yield from self._of(data, line, self._dropped)
            if not self._parts:
                self._told, self._rest = True, b""
                return
            searched = max(searched, min(end, len(data) - 1))  # one byte stays, see _start
        self._rest = data[searched:]
        self._dropped += searched

    def _of(self, data: bytes, line: Line, dropped: int) -> Generator[FoundLine | None, None, int]:
        """What is told of a line that matches, and the end of what matches in it. dropped: bytes of the line
        in front of the data."""
        if not self._parts:
            shown = cut(data[line.start : line.end], line.first - line.start, line.last - line.start)
            yield FoundLine(self._number, dropped + line.first - line.start, shown)
            return line.last
        end = line.last
        for first, end in parts(self._pattern, data, line):
            shown = cut(data[first:end], 0, end - first)
            yield FoundLine(self._number, dropped + first - line.start, shown) if first < end else None
        return end

    def _others(self, data: bytes, start: int, end: int) -> Iterator[FoundLine]:
        """Whole lines that do not match."""
        if start < end:
            yield from self._around.take(
                data[start:end], self._number, is_cut=self._dropped > 0 and start == 0
            )
            self._number += data.count(b"\n", start, end)

    @property
    def _start(self) -> int:
        """In the middle of a line there is a byte in front, so that `^` does not match there."""
        return 1 if self._dropped else 0


class _Around:
    """Lines around those that match: the first ones behind one, and the last ones in front of the next."""

    def __init__(self, before: int, after: int) -> None:
        self._before, self._after = before, after
        self._owed = 0  # behind the latest line that matches
        self._kept: deque[FoundLine] = deque(maxlen=before)

    def before(self) -> list[FoundLine]:
        """A line matches, and these are directly in front of it."""
        kept = [*self._kept]
        self._kept.clear()
        self._owed = self._after
        return kept

    def take(self, lines: bytes, number: int, *, is_cut: bool) -> Iterator[FoundLine]:
        """Lines that do not match, each with its end, which may be missing to the last line of a file alone;
        those of them that are told at once. number: of the first one. is_cut: its beginning is missing."""
        position = 0
        while self._owed and position < len(lines):
            found, position = _plain(lines, position, number, is_cut and not position)
            yield found
            number += 1
            self._owed -= 1
        if self._before:
            start = _last_ones(lines, position, self._before)
            number += lines.count(b"\n", position, start)
            while start < len(lines):
                found, start = _plain(lines, start, number, is_cut and not start)
                self._kept.append(found)
                number += 1


def _plain(lines: bytes, start: int, number: int, is_cut: bool) -> tuple[FoundLine, int]:
    """The line that begins there, as it is shown, and where the next one does."""
    end = lines.find(b"\n", start)
    line = lines[start:] if end < 0 else lines[start:end].removesuffix(b"\r")
    text = ("…" if is_cut else "") + cut(line, 0, 0)
    return FoundLine(number, None, text), len(lines) if end < 0 else end + 1


def _last_ones(lines: bytes, start: int, count: int) -> int:
    """Where the last `count` lines behind `start` begin."""
    at = len(lines) - lines.endswith(b"\n")
    for _ in range(count):
        at = lines.rfind(b"\n", start, at)
        if at < 0:
            return start
    return at + 1
