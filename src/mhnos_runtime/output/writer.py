"""The one writer of an output log. Knows the ring and its order of publication; not where bytes come from."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from mhnos_runtime.output import layout as at
from mhnos_runtime.output.mapping import Mapping


class LogWriter:
    """Appends to a log file, overwriting the oldest bytes unless a reader holds them.

    A turn is `room`, `reserve`, any number of `advance`, and one `publish`; readers see nothing before it.
    """

    def __init__(self, fd: int) -> None:
        """Take over an open log file (and its descriptor), empty or as an earlier writer left it.

        Raises Unavailable for a file of another layout.
        """
        self.fd = fd
        try:
            self._mapping = mapping = Mapping.of(fd)
        except BaseException:
            os.close(fd)
            raise
        self._words, self._segments, self._data = mapping.words, mapping.segments, mapping.data
        self.capacity, self._slots = mapping.capacity, mapping.slots
        self._fence = at.Fence()
        self.head: int = self._words[at.W_HEAD]
        self._tail: int = self._words[at.W_TAIL]
        self._opened: int = self._words[at.W_OPENED]
        self._kept: int = self._words[at.W_KEPT]
        self._stream = -1
        self._segment_from_ms = self._segment_until_ms = 0

    @classmethod
    def create(cls, path: Path, retention_bytes: int) -> LogWriter:
        """Make a log with all of its disk space allocated.

        Raises OSError (ENOSPC, EDQUOT) where there is not enough, and then leaves nothing behind.
        """
        capacity, slots, size = at.sizes(retention_bytes)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)
            with mmap.mmap(fd, at.PAGE) as header, memoryview(header).cast("Q") as words:
                words[at.W_VERSION] = at.VERSION
                words[at.W_CAPACITY] = capacity
                words[at.W_SLOTS] = slots
                words[at.W_HOLD] = at.NO_HOLD
                words[at.W_MAGIC] = at.MAGIC
        except BaseException:
            os.close(fd)
            path.unlink()
            raise
        try:
            return cls(fd)
        except BaseException:
            path.unlink()
            raise

    def close(self) -> None:
        self._mapping.close()
        os.close(self.fd)
        # The number may soon be another file's.
        self.fd = -1

    @property
    def hold(self) -> int:
        """The offset that readers hold, or NO_HOLD."""
        return self._words[at.W_HOLD]

    def hold_all(self) -> None:
        """Keep everything for the first reader, which sets the hold itself from then on."""
        self._words[at.W_HOLD] = 0

    def room(self) -> int:
        """Bytes that can be written now without overwriting what a reader holds; at most a burst."""
        hold = self._words[at.W_HOLD]
        if hold == at.NO_HOLD or hold < self._tail:
            return at.BURST_BYTES
        if self._opened - self._kept == self._slots and hold < self._start(self._kept + 1):
            return 0
        return max(0, min(at.BURST_BYTES, hold + self.capacity - self.head))

    def block(self) -> bool:
        """Tell readers that the writer waits for them. False when one moved meanwhile: look at `room`
        again."""
        self._words[at.W_BLOCKED] = 1
        self._fence()
        if self.room():
            self.unblock()
            return False
        return True

    def unblock(self) -> None:
        self._words[at.W_BLOCKED] = 0

    def pass_by(self) -> None:
        """Give up the byte that the slowest reader holds, and nothing else: that reader is overrun, and the
        server sees by the tail that it has to hold what the others need. Until it does there is room, also
        for what overwrites those."""
        hold = self._words[at.W_HOLD]
        if hold < self.head:
            self._forget_before(hold + 1)

    def reserve(self, limit: int) -> tuple[memoryview, memoryview]:
        """Make room for `limit` bytes behind the head; return where they go (the second part may be
        empty)."""
        self._forget_before(self.head + limit - self.capacity)
        start = self.head % self.capacity
        first = min(limit, self.capacity - start)
        return self._data[start : start + first], self._data[: limit - first]

    def advance(self, count: int, stream: int, now_ms: int) -> None:
        """Count bytes that were put where `reserve` said, in order."""
        if stream != self._stream or not self._segment_from_ms <= now_ms < self._segment_until_ms:
            self._open_segment(stream, now_ms)
        self.head += count

    def publish(self) -> bool:
        """Let readers see what was written. True when one has to be woken."""
        words = self._words
        words[at.W_OPENED] = self._opened
        self._fence()
        words[at.W_HEAD] = self.head
        self._fence()
        if not words[at.W_WAITING]:
            return False
        words[at.W_WAITING] = 0
        return True

    def append(self, data: bytes, stream: int, now_ms: int) -> bool:
        """Copy at most a burst of bytes in and publish them; see `publish`."""
        first, second = self.reserve(len(data))
        first[:] = data[: len(first)]
        second[:] = data[len(first) :]
        self.advance(len(data), stream, now_ms)
        return self.publish()

    def _start(self, number: int) -> int:
        return self._segments[number % self._slots * 2] >> 1

    def _forget_before(self, offset: int) -> None:
        if offset <= self._tail:
            return
        while self._kept + 1 < self._opened and self._start(self._kept + 1) <= offset:
            self._kept += 1
        self._publish_tail(offset)

    def _publish_tail(self, offset: int) -> None:
        self._tail = offset
        self._words[at.W_TAIL] = offset
        self._words[at.W_KEPT] = self._kept
        self._fence()

    def _open_segment(self, stream: int, now_ms: int) -> None:
        if self._opened - self._kept == self._slots:
            self._kept += 1
            # Readers can write there too: no start is beyond what is written.
            self._publish_tail(max(self._tail, min(self._start(self._kept), self.head)))
        slot = self._opened % self._slots * 2
        self._segments[slot] = self.head * 2 + stream
        self._segments[slot + 1] = now_ms
        self._opened += 1
        self._stream = stream
        self._segment_from_ms, self._segment_until_ms = now_ms, now_ms + at.SEGMENT_MS
