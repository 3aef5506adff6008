"""A reader's view of one output log, shared by all cursors of a server. Knows the ring; not who reads or
why."""

from __future__ import annotations

import os

from mhnos_runtime.output import layout as at
from mhnos_runtime.output.mapping import Mapping


class Chunk:
    """A stretch of bytes of one segment: of one stream, and captured within SEGMENT_MS.

    data is a copy. time_ms: epoch, when the segment began.
    """

    __slots__ = ("data", "offset", "stream", "time_ms")

    def __init__(self, offset: int, stream: int, data: bytes, time_ms: int) -> None:
        self.offset = offset
        self.stream = stream
        self.data = data
        self.time_ms = time_ms

    @property
    def next(self) -> int:
        return self.offset + len(self.data)


class LogReader:
    """Maps a log file that another process writes. For one thread."""

    def __init__(self, fd: int) -> None:
        """Take over a descriptor of the file. Raises Unavailable for a file of another layout."""
        try:
            self._mapping = mapping = Mapping.of(fd)
        finally:
            os.close(fd)
        self._words, self._segments, self._data = mapping.words, mapping.segments, mapping.data
        self.capacity, self._slots = mapping.capacity, mapping.slots
        self._fence = at.Fence()
        self._last: Chunk | None = None

    def close(self) -> None:
        self._mapping.close()

    def forget(self) -> None:
        """Keep no copy of the last chunk: nobody stands there any more."""
        self._last = None

    def inputs(self) -> list[memoryview]:
        """The slots of the clients' input positions, INPUT_WORDS words each; see layout."""
        ends = range(at.W_INPUTS, at.W_INPUTS + at.INPUT_SLOTS * at.INPUT_WORDS, at.INPUT_WORDS)
        return [self._words[start : start + at.INPUT_WORDS] for start in ends]

    @property
    def head(self) -> int:
        """Offset behind the last byte written."""
        return self._words[at.W_HEAD]

    @property
    def tail(self) -> int:
        """Offset of the first byte kept."""
        return self._words[at.W_TAIL]

    @property
    def oldest(self) -> int:
        """Offset of the first byte that is promised: what is kept before it may go with the next burst."""
        return max(self.tail, self.head + at.BURST_BYTES - self.capacity)

    @property
    def hold(self) -> int:
        return self._words[at.W_HOLD]

    def set_hold(self, offset: int) -> bool:
        """Ask the writer not to overwrite from `offset` on (NO_HOLD: nothing). True when it waits to be
        told."""
        self._words[at.W_HOLD] = offset
        self._fence()
        return self._words[at.W_BLOCKED] != 0

    def park(self, offset: int) -> bool:
        """Ask to be woken at the next byte. False when there is one behind `offset` already."""
        self._words[at.W_WAITING] = 1
        self._fence()
        return self._words[at.W_HEAD] <= offset

    def read(self, offset: int, limit: int) -> Chunk | None:
        """Copy up to `limit` bytes of one segment from `offset`.

        None at the head, and None as well when the bytes are no longer kept: then `tail` is beyond `offset`.
        The last chunk is remembered, since viewers that stand beside each other all ask for it.
        """
        last = self._last
        if last is not None and last.offset == offset and len(last.data) <= limit:
            return last
        head = self.head
        if offset >= head:
            return None
        self._fence()
        kept, opened = self._words[at.W_KEPT], self._words[at.W_OPENED]
        number = self._find(offset, kept, opened)
        stream, time_ms = self._segment(number)
        end = min(head, offset + limit)
        if number + 1 < opened:
            end = min(end, self._start(number + 1))
        # Where segments were overtaken or damaged, this ends a turn that would not move on.
        end = max(end, offset + 1)
        data = self._copy(offset, end - offset)
        self._fence()
        if self.tail > offset or self._words[at.W_KEPT] > number:
            return None
        self._last = chunk = Chunk(offset, stream, data, time_ms)
        return chunk

    def before(self, offset: int, stream: int, count: int) -> bytes:
        """The last `count` bytes (or fewer) of one stream in front of `offset`, as far as they are kept."""
        number = self._find(offset, self._words[at.W_KEPT], self._words[at.W_OPENED])
        found = b""
        while len(found) < count and offset > self.tail and number >= self._words[at.W_KEPT]:
            start = max(self._start(number), self.tail)
            if self._segments[number % self._slots * 2] & 1 == stream and start < offset:
                size = min(count - len(found), offset - start)
                found = self._copy(offset - size, size) + found
            offset, number = min(offset, start), number - 1
        self._fence()
        return found if self.tail <= offset else b""

    def since(self, time_ms: int) -> int:
        """Offset of the first kept byte that may have been captured at or after an epoch time: what is before
        it was not. At most SEGMENT_MS of earlier output follow it. The head where there is none.

        By bisection, so a clock that was set back makes it one of several answers.
        """
        kept, opened = self._words[at.W_KEPT], self._words[at.W_OPENED]
        low, high = kept, opened
        while low < high:
            middle = (low + high) // 2
            if self._segment(middle)[1] + at.SEGMENT_MS > time_ms:
                high = middle
            else:
                low = middle + 1
        return self.head if low == opened else max(self._start(low), self.tail)

    def times(self, offset: int) -> tuple[list[tuple[int, int]], int | None]:
        """When what is kept from `offset` on was captured: (offset, epoch ms) of pieces in order, the first
        one with `offset` in it, none less than TIMES_APART_MS after the one before; and where the next page
        begins, if this one did not come to the head."""
        head = self.head
        self._fence()
        kept, opened = self._words[at.W_KEPT], self._words[at.W_OPENED]
        if offset >= head or kept >= opened:
            return [], None
        first = self._find(offset, kept, opened)
        last = min(opened, first + at.TIMES_SEGMENTS)
        found: list[tuple[int, int, int]] = []
        for number in range(first, last):
            time_ms = self._segment(number)[1]
            if not found or not 0 <= time_ms - found[-1][2] < at.TIMES_APART_MS:
                found.append((number, self._start(number), time_ms))
        following = self._start(last) if last < opened else head
        self._fence()
        kept, low = self._words[at.W_KEPT], max(offset, self.tail)
        pieces = [(max(start, low), ms) for number, start, ms in found if number >= kept and start < head]
        # Of those that end below the tail nothing is kept, although their segments still are.
        ends = [*(start for start, _ms in pieces[1:]), following]
        pieces = [piece for piece, end in zip(pieces, ends, strict=True) if piece[0] < end]
        return pieces, following if following < head else None

    def _start(self, number: int) -> int:
        return self._segments[number % self._slots * 2] >> 1

    def _segment(self, number: int) -> tuple[int, int]:
        slot = number % self._slots * 2
        return self._segments[slot] & 1, self._segments[slot + 1]

    def _find(self, offset: int, kept: int, opened: int) -> int:
        """Number of the segment that holds `offset`, by bisection; the last one first, as most readers are
        there."""
        low, high = kept, max(kept, opened - 1)
        if self._start(high) <= offset:
            return high
        while low < high:
            middle = (low + high + 1) // 2
            if self._start(middle) <= offset:
                low = middle
            else:
                high = middle - 1
        return low

    def _copy(self, offset: int, count: int) -> bytes:
        position = offset % self.capacity
        if position + count <= self.capacity:
            return bytes(self._data[position : position + count])
        rest = position + count - self.capacity
        return bytes(self._data[position:]) + bytes(self._data[:rest])
