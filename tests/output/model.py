"""What an output log promises, as plain lists: which bytes were written, to which stream, and which are kept.

Knows the sizes of the layout, since they are part of the promise; not how the ring works.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from mhnos_runtime.output import LogReader, LogWriter
from mhnos_runtime.output.layout import BYTES_PER_SLOT, SEGMENT_MS


@dataclass
class Model:
    """data and streams: one entry a byte. segments: (first offset, stream, epoch ms) as they are opened."""

    retention_bytes: int
    data: bytearray = field(default_factory=bytearray)
    streams: bytearray = field(default_factory=bytearray)
    segments: list[tuple[int, int, int]] = field(default_factory=list)

    @property
    def head(self) -> int:
        return len(self.data)

    def append(self, data: bytes, stream: int, now_ms: int) -> None:
        last = self.segments[-1] if self.segments else None
        if last is None or last[1] != stream or not last[2] <= now_ms < last[2] + SEGMENT_MS:
            self.segments.append((self.head, stream, now_ms))
        self.data += data
        self.streams += bytes([stream]) * len(data)

    def least_kept(self, slots: int) -> int:
        """The offset from which on everything has to be kept: the promised bytes, as far as slots reach."""
        first = max(0, self.head - self.retention_bytes)
        if len(self.segments) <= slots:
            return first
        return max(first, self.segments[-slots][0])

    def time_at(self, offset: int) -> int:
        return next(ms for start, _stream, ms in reversed(self.segments) if start <= offset)

    def before(self, offset: int, stream: int, count: int, tail: int) -> bytes:
        found = bytes(
            byte
            for byte, of in zip(self.data[tail:offset], self.streams[tail:offset], strict=True)
            if of == stream
        )
        return found[max(0, len(found) - count) :]


def make(path: Path, retention_bytes: int) -> tuple[LogWriter, LogReader]:
    writer = LogWriter.create(path, retention_bytes)
    return writer, open_reader(path)


def open_reader(path: Path) -> LogReader:
    return LogReader(os.open(path, os.O_RDWR | os.O_CLOEXEC))


def slots_of(reader: LogReader) -> int:
    return -(-reader.capacity // BYTES_PER_SLOT // 256) * 256
