"""One reader's position in one output log. Live view, replay, late attach and recording are all this."""

from __future__ import annotations

from mhnos_runtime.output.layout import BURST_BYTES
from mhnos_runtime.output.reader import Chunk, LogReader


class Overrun:
    """Bytes from..to (exclusive) that the writer has overwritten before the cursor came to them."""

    __slots__ = ("from_", "to")

    def __init__(self, from_: int, to: int) -> None:
        self.from_ = from_
        self.to = to


class Cursor:
    """A position that only moves over what was handed out or told as overrun."""

    __slots__ = ("log", "offset")

    def __init__(self, log: LogReader, offset: int) -> None:
        self.log = log
        self.offset = offset

    @property
    def lag(self) -> int:
        """Bytes between this position and the head."""
        return self.log.head - self.offset

    def take(self, limit: int = BURST_BYTES) -> Chunk | Overrun | None:
        """The next bytes of one stream, the overrun in front of them, or None at the head. Never an empty
        chunk."""
        while (chunk := self.log.read(self.offset, limit)) is None:
            tail = self.log.tail
            if tail > self.offset:
                overrun = Overrun(self.offset, tail)
                self.offset = tail
                return overrun
            if self.log.head <= self.offset:
                return None
            # The writer went by while the segments were searched, but not beyond this offset.
        self.offset = chunk.next
        return chunk
