"""Lines in a stream of chunks: those that match, the last few, and the time at which each began. Pure."""

from __future__ import annotations

import bisect
import datetime
import re
import time
from collections import deque
from collections.abc import Callable, Sequence

from mhnos_runtime.client.types import Gap, Output, Stream

#: A line without an end that is longer is judged in pieces of about this size.
LONGEST_LINE_BYTES = 1 << 20


def gap_in_words(gap: Gap) -> str:
    """What is missing, by its exact range."""
    return f"{gap.to - gap.from_} bytes of output are no longer kept: {gap.from_} to {gap.to}"


class _Line:
    """A line that has begun, at `offset`."""

    __slots__ = ("offset", "parts", "size")

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.parts: list[bytes] = []
        self.size = 0

    def add(self, part: bytes) -> None:
        self.parts.append(part)
        self.size += len(part)


class Matching:
    """Passes on the lines in which a pattern is found, each as one chunk; the streams apart, gaps as they
    are."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern
        self._begun: dict[Stream, _Line] = {}

    def feed(self, item: Output | Gap) -> list[Output | Gap]:
        """What matches of the lines that this chunk completes. A gap ends those that have begun."""
        if isinstance(item, Gap):
            return [*self.rest(), item]
        found: list[Output | Gap] = []
        offset = item.offset
        for part in _split(item.data):
            line = self._begun.setdefault(item.stream, _Line(offset))
            line.add(part)
            offset += len(part)
            if part.endswith(b"\n") or line.size >= LONGEST_LINE_BYTES:
                found += self._judged(item.stream)
        return found

    def rest(self) -> list[Output | Gap]:
        """What matches of the lines without an end, when nothing follows."""
        return [each for stream in list(self._begun) for each in self._judged(stream)]

    def _judged(self, stream: Stream) -> list[Output | Gap]:
        line = self._begun.pop(stream)
        data = b"".join(line.parts)
        matches = self._pattern.search(data.decode("utf-8", "replace").rstrip("\r\n"))
        return [Output(stream, line.offset, data)] if matches else []


class LastLines:
    """Keeps the end of what it is fed: the last `count` lines, a last one without a line end included."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._items: deque[Output | Gap] = deque()
        self._line_ends = 0

    def feed(self, item: Output | Gap) -> None:
        """Take the next chunk; chunks that cannot be needed any more are dropped."""
        self._items.append(item)
        self._line_ends += _line_ends(item)
        while len(self._items) > 1 and self._line_ends - _line_ends(self._items[0]) > self._count:
            self._line_ends -= _line_ends(self._items.popleft())

    def items(self) -> list[Output | Gap]:
        """The chunks of the last lines, the first one cut to where its line begins."""
        wanted = self._count + (0 if self._unfinished() else 1)
        kept: deque[Output | Gap] = deque()
        if self._count == 0:
            return []
        for item in reversed(self._items):
            ends = _line_ends(item)
            if isinstance(item, Output) and ends >= wanted:
                cut = _nth_last_line_end(item.data, wanted) + 1
                if cut < len(item.data):
                    kept.appendleft(Output(item.stream, item.offset + cut, item.data[cut:]))
                break
            wanted -= ends
            kept.appendleft(item)
        return list(kept)

    def _unfinished(self) -> bool:
        last = next((item for item in reversed(self._items) if isinstance(item, Output)), None)
        return last is not None and not last.data.endswith(b"\n")


def _line_ends(item: Output | Gap) -> int:
    return item.data.count(b"\n") if isinstance(item, Output) else 0


def _nth_last_line_end(data: bytes, count: int) -> int:
    position = len(data)
    for _ in range(count):
        position = data.rindex(b"\n", 0, position)
    return position


class Stamper:
    """Puts the time before each line, by stream; live output has the time of its arrival."""

    def __init__(
        self,
        timeline: Sequence[tuple[int, int]],
        live_from: int = 1 << 62,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """timeline: (offset, epoch ms) of the kept pieces, in order; live_from: the offset after them."""
        self._offsets = [offset for offset, _ in timeline]
        self._times_ms = [time_ms for _, time_ms in timeline]
        self.live_from = live_from
        self._now_ms = now_ms
        self._inside: set[str] = set()

    def feed(self, item: Output) -> bytes:
        """The chunk with a time before each line that begins in it."""
        out, position = [], item.offset
        for line in _split(item.data):
            if item.stream not in self._inside:
                out.append(self._stamp(position))
            out.append(line)
            position += len(line)
            (self._inside.discard if line.endswith(b"\n") else self._inside.add)(item.stream)
        return b"".join(out)

    def _stamp(self, offset: int) -> bytes:
        index = bisect.bisect_right(self._offsets, offset) - 1
        time_ms = self._now_ms() if index < 0 or offset >= self.live_from else self._times_ms[index]
        moment = datetime.datetime.fromtimestamp(time_ms / 1000, datetime.UTC)
        return moment.strftime("%Y-%m-%dT%H:%M:%S.").encode() + b"%03dZ " % (time_ms % 1000)


def _split(data: bytes) -> list[bytes]:
    """Lines with their line feeds: a carriage return alone ends no line."""
    pieces = data.split(b"\n")
    return [piece + b"\n" for piece in pieces[:-1]] + ([pieces[-1]] if pieces[-1] else [])
