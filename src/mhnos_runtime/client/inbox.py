"""One process's output between the connection and its consumer: in order, without holes, bounded.

Pure: frames and gaps in, chunks out. Knows nothing of sockets, tasks or requests.
"""

from __future__ import annotations

import enum
from collections import deque

from mhnos_runtime.client.errors import ProtocolViolation
from mhnos_runtime.client.types import Gap, Output, Stream

# bytes; above the default retention (1 MiB), so that a consumer that the server waits for never overflows
# it
HIGH_WATER_BYTES = 4 * 1024 * 1024
# bytes; a replay is asked for while there is still something to consume, so that the consumer need not wait
# for it
LOW_WATER_BYTES = 512 * 1024


class Flow(enum.Enum):
    """FLOWING: a hole is an error. OVERFLOWED: what arrives is dropped. SYNCING: a replay was asked for, and
    frames that were under way before it may still come."""

    FLOWING = "flowing"
    OVERFLOWED = "overflowed"
    SYNCING = "syncing"


class Inbox:
    """The invariant: what `take` returns is contiguous from the first byte on, each byte once, gaps shown."""

    def __init__(
        self,
        expected: int | None = None,
        *,
        high_water_bytes: int = HIGH_WATER_BYTES,
        low_water_bytes: int = LOW_WATER_BYTES,
    ) -> None:
        """expected: the offset of the first byte to come; None where only the server knows it."""
        self.expected = expected
        self.consumed = expected
        self.flow = Flow.FLOWING
        self.queued_bytes = 0
        self.replay_end = 0
        self._high_water_bytes = high_water_bytes
        self._low_water_bytes = low_water_bytes
        self._items: deque[Output | Gap] = deque()

    def replays_to(self, offset: int) -> None:
        """What comes from before `offset` is a replay."""
        self.replay_end = offset

    def begin_sync(self) -> None:
        """A replay from `expected` has been asked for."""
        self.flow = Flow.SYNCING

    def synced(self, from_: int, next_: int) -> None:
        """The replay is over: the server has sent everything between the two offsets.

        Raises ProtocolViolation if something between them never came.
        """
        if self.flow is Flow.OVERFLOWED:
            return
        self.flow = Flow.FLOWING
        if self.expected is None:
            self.expected = self.consumed = from_
        if self.expected < next_:
            raise self._hole(next_)

    def output(self, stream: Stream, offset: int, data: bytes) -> None:
        """Take a frame. Raises ProtocolViolation if it leaves a hole."""
        start = offset if self.expected is None else self.expected
        if offset > start:
            if self.flow is Flow.FLOWING:
                raise self._hole(offset)
            return
        fresh = data[start - offset :] if start > offset else data
        if fresh and self._has_room():
            self._append(Output(stream, start, fresh, start < self.replay_end), len(fresh))

    def gap(self, from_: int, to: int) -> None:
        """Take the server's word that a range is gone. Raises ProtocolViolation on a hole before it."""
        start = from_ if self.expected is None else self.expected
        if from_ > start:
            if self.flow is Flow.FLOWING:
                raise self._hole(from_)
            return
        if to > start and self.flow is not Flow.OVERFLOWED:
            self._append(Gap(start, to), 0)

    def take(self) -> Output | Gap | None:
        """The next chunk for the consumer, or None."""
        if not self._items:
            return None
        item = self._items.popleft()
        if isinstance(item, Output):
            self.queued_bytes -= len(item.data)
            self.consumed = item.next
        else:
            self.consumed = item.to
        return item

    @property
    def wants_replay(self) -> bool:
        """Whether something was dropped and there is room for it again."""
        return self.flow is Flow.OVERFLOWED and self.queued_bytes <= self._low_water_bytes

    def _has_room(self) -> bool:
        if self.queued_bytes >= self._high_water_bytes:
            self.flow = Flow.OVERFLOWED
        return self.flow is not Flow.OVERFLOWED

    def _append(self, item: Output | Gap, size_bytes: int) -> None:
        if self.expected is None:
            self.consumed = item.offset if isinstance(item, Output) else item.from_
        self.expected = item.next if isinstance(item, Output) else item.to
        self.queued_bytes += size_bytes
        self._items.append(item)

    def _hole(self, offset: int) -> ProtocolViolation:
        return ProtocolViolation(
            f"output jumped from offset {self.expected} to {offset} without a gap message",
            hint="this is a defect of the server, or of something between it and this client",
        )
