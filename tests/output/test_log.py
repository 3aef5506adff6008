"""The output log against a plain model, step by step: bytes, streams, overruns, holds, and re-opening."""

from __future__ import annotations

import os
import tempfile
from itertools import pairwise
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mhnos_runtime.output import NO_HOLD, Chunk, Cursor, LogWriter, Overrun
from mhnos_runtime.output import layout as at
from tests.output.model import Model, make, open_reader, slots_of

SMALL = st.binary(min_size=1, max_size=300)
STREAM = st.integers(0, 1)


class Log(RuleBasedStateMachine):
    """One writer, three cursors on two readers, and a clock that also goes back."""

    @initialize(retention=st.sampled_from([0, 1, 4096, 10_000]))
    def create(self, retention: int) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "log"
        self.writer, self.reader = make(self.path, retention)
        self.model = Model(retention)
        self.now_ms = 1_000_000
        self.readers = [self.reader, open_reader(self.path)]
        self.cursors = [Cursor(self.reader, 0), Cursor(self.reader, 0), Cursor(self.readers[1], 0)]
        self.held: int | None = None
        self.given_up = 0

    def teardown(self) -> None:
        if hasattr(self, "writer"):
            self.writer.close()
            for reader in self.readers:
                reader.close()
            self.directory.cleanup()

    def put(self, data: bytes, stream: int) -> bool:
        """As the supervisor does: at most as much as there is room for, in one burst."""
        room = self.writer.room()
        assert 0 <= room <= at.BURST_BYTES
        if not room:
            return False
        data = data[:room]
        first, second = self.writer.reserve(room)
        assert len(first) + len(second) == room
        first[: len(data)] = data[: len(first)]
        second[: max(0, len(data) - len(first))] = data[len(first) :]
        self.writer.advance(len(data), stream, self.now_ms)
        self.writer.publish()
        self.model.append(data, stream, self.now_ms)
        return True

    @rule(data=SMALL, stream=STREAM)
    def write_a_little(self, data: bytes, stream: int) -> None:
        self.put(data, stream)

    @rule(stream=STREAM, size=st.integers(1, at.BURST_BYTES), start=st.integers(0, 255))
    def write_a_burst(self, stream: int, size: int, start: int) -> None:
        self.put((bytes(range(start, 256)) + bytes(range(start)))[:256] * (size // 256 + 1), stream)

    @rule(count=st.integers(2, 3000))
    def alternate_byte_by_byte(self, count: int) -> None:
        for number in range(count):
            if not self.put(bytes([number % 251]), number % 2):
                return

    @rule(step=st.integers(-5000, 5000))
    def let_time_pass(self, step: int) -> None:
        self.now_ms += step

    @rule(which=st.integers(0, 2), limit=st.integers(1, 70_000))
    def take(self, which: int, limit: int) -> None:
        cursor, model = self.cursors[which], self.model
        offset = cursor.offset
        item = cursor.take(limit)
        if isinstance(item, Overrun):
            assert (item.from_, item.to) == (offset, self.reader.tail)
            assert item.from_ < item.to
        elif isinstance(item, Chunk):
            assert item.offset == offset
            assert 0 < len(item.data) <= limit
            assert item.data == model.data[offset : item.next]
            assert set(model.streams[offset : item.next]) == {item.stream}
            assert item.time_ms == model.time_at(offset)
        else:
            assert offset == model.head
        assert cursor.offset == (
            offset if item is None else item.to if isinstance(item, Overrun) else item.next
        )
        assert cursor.lag == model.head - cursor.offset

    @rule(which=st.integers(0, 2), back=st.integers(0, 200_000))
    def begin_elsewhere(self, which: int, back: int) -> None:
        log = self.cursors[which].log
        self.cursors[which] = Cursor(log, max(0, self.model.head - back))

    @rule(back=st.integers(0, 5000), stream=STREAM, count=st.integers(0, 5))
    def look_back(self, back: int, stream: int, count: int) -> None:
        offset = max(self.reader.tail, self.model.head - back)
        expected = self.model.before(offset, stream, count, self.reader.tail)
        assert self.reader.before(offset, stream, count) == expected

    @rule(time=st.integers(990_000, 1_020_000))
    def look_for_a_time(self, time: int) -> None:
        """A clock that was set back makes several answers right: each is a border in time."""
        offset, tail, head = self.reader.since(time), self.reader.tail, self.model.head
        assert tail <= offset <= head
        if offset < head:
            assert self.model.time_at(offset) + at.SEGMENT_MS > time
        if offset > tail:
            assert self.model.time_at(offset - 1) + at.SEGMENT_MS <= time

    @rule(back=st.integers(0, 200_000))
    def look_for_times(self, back: int) -> None:
        offset = max(0, self.model.head - back)
        pieces, following = self.reader.times(offset)
        assert following is None or offset < following < self.model.head
        for start, time_ms in pieces:
            assert offset <= start < self.model.head
            assert self.model.time_at(start) == time_ms
        for (start, before), (end, _) in pairwise([*pieces, (following or self.model.head, 0)]):
            for byte in (start, end - 1):
                assert (
                    0 <= self.model.time_at(byte) - before < at.SEGMENT_MS + at.TIMES_APART_MS
                    or byte == start
                )

    @rule(back=st.integers(0, 100_000))
    def hold(self, back: int) -> None:
        offset = max(self.reader.tail, self.model.head - back)
        assert self.reader.set_hold(offset) is False  # the writer is not waiting
        self.held = offset
        assert self.writer.hold == self.reader.hold == offset

    @rule()
    def let_go(self) -> None:
        self.reader.set_hold(NO_HOLD)
        self.held = None

    @precondition(lambda self: self.held is not None and not self.writer.room())
    @rule()
    def block_and_pass_by(self) -> None:
        """Only the byte that the slowest needs is given up, until it is known what the others need."""
        assert self.writer.block()
        held = self.held or 0
        self.writer.pass_by()
        assert self.reader.tail == held + 1
        assert self.writer.room() == at.BURST_BYTES  # if the server does not answer
        assert self.readers[1].set_hold(self.model.head)
        assert self.writer.room() > 0
        self.writer.unblock()
        self.held, self.given_up = self.model.head, held + 1

    @rule()
    def open_again(self) -> None:
        """By another writer, as after a hand-over; the readers stay."""
        fd = os.dup(self.writer.fd)
        self.writer.close()
        self.writer = LogWriter(fd)
        self.model.segments.append((self.model.head, -1, 0))  # whatever comes next is a new segment
        if self.held is not None and self.held < self.reader.tail:
            self.held = None  # overtaken by now
        self.readers[1].close()
        self.readers[1] = open_reader(self.path)
        self.cursors[2] = Cursor(self.readers[1], self.cursors[2].offset)

    @invariant()
    def promises(self) -> None:
        if not hasattr(self, "writer"):
            return
        model, reader = self.model, self.reader
        assert reader.head == self.writer.head == model.head
        assert 0 <= reader.tail <= reader.head
        assert reader.tail <= max(model.least_kept(slots_of(reader)), self.given_up)
        if self.held is not None:
            assert reader.tail <= self.held, "a held byte was overwritten"


TestLog = Log.TestCase
TestLog.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
