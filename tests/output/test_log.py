"""The output log against a plain model, step by step: bytes, streams, gaps, holds, and re-opening."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mhnos_runtime.errors import Unavailable
from mhnos_runtime.output import NO_HOLD, Chunk, Cursor, LogReader, LogWriter, Overrun
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
        offset = self.reader.since(time)
        tail, head = self.reader.tail, self.model.head
        kept = [start for start in self.model.segments if start[0] >= tail]
        later = [start for start, _stream, ms in kept if ms >= time]
        at_tail = head and tail < head and self.model.time_at(tail) >= time
        # With a clock that was set back, a segment of which nothing is kept may still count.
        assert offset in (tail, tail if at_tail else min(later, default=head))

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


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


def read_all(reader: LogReader, offset: int) -> list[tuple[int, int, bytes]]:
    cursor, found = Cursor(reader, offset), []
    while (item := cursor.take()) is not None:
        found.append(
            (-1, item.from_, b"") if isinstance(item, Overrun) else (item.stream, item.offset, item.data)
        )
    return found


def test_an_empty_log_has_nothing_to_give(path: Path) -> None:
    writer, reader = make(path, 4096)
    assert (reader.head, reader.tail, reader.hold) == (0, 0, NO_HOLD)
    assert Cursor(reader, 0).take() is None
    assert reader.before(0, 0, 3) == b""
    assert reader.since(0) == 0
    assert reader.park(0)
    writer.close()
    reader.close()


def test_streams_keep_their_order(path: Path) -> None:
    writer, reader = make(path, 4096)
    for data, stream in ((b"out", 0), (b"err", 1), (b"more", 1), (b"out", 0)):
        writer.append(data, stream, 5)
    assert read_all(reader, 0) == [(0, 0, b"out"), (1, 3, b"errmore"), (0, 10, b"out")]
    writer.close()
    reader.close()


def test_more_changes_of_stream_than_slots_lose_the_oldest_and_say_so(path: Path) -> None:
    writer, reader = make(path, 0)
    slots = slots_of(reader)
    for number in range(slots + 10):
        writer.append(b"x", number % 2, 5)
    assert reader.tail == 10
    found = read_all(reader, 0)
    assert found[0] == (-1, 0, b"")
    assert [(stream, offset) for stream, offset, _ in found[1:]] == [
        (number % 2, number) for number in range(10, slots + 10)
    ]
    writer.close()
    reader.close()


def test_a_holder_is_not_overtaken_by_running_out_of_slots(path: Path) -> None:
    writer, reader = make(path, 0)
    reader.set_hold(0)
    count = 0
    while writer.room():
        writer.append(b"x", count % 2, 5)
        count += 1
    assert count == slots_of(reader)
    assert reader.tail == 0
    assert writer.block()
    assert reader.set_hold(1)
    assert writer.room()
    writer.close()
    reader.close()


def test_a_clock_that_is_set_back_begins_a_segment(path: Path) -> None:
    """Otherwise an hour's output would bear the time of before for an hour."""
    writer, reader = make(path, 4096)
    writer.append(b"a", 0, 10_000_000)
    writer.append(b"b", 0, 10_000_000 - 3_600_000)
    chunk = reader.read(1, 10)
    assert chunk is not None
    assert chunk.time_ms == 10_000_000 - 3_600_000
    writer.close()
    reader.close()


def test_who_finds_room_while_it_blocks_is_not_told_of_every_move(path: Path) -> None:
    """The mark "I wait" must not stay when the writer does not: each move would send a notice then."""
    writer, reader = make(path, 0)
    reader.set_hold(0)
    writer.append(b"x" * at.BURST_BYTES, 0, 5)
    assert not writer.room()
    reader.set_hold(100)
    assert not writer.block()
    assert reader.set_hold(200) is False
    writer.close()
    reader.close()


def test_the_next_hold_counts_after_one_was_passed_by(path: Path) -> None:
    writer, reader = make(path, 0)
    reader.set_hold(0)
    writer.append(b"x" * at.BURST_BYTES, 0, 5)
    assert writer.block()
    writer.pass_by()
    assert writer.room() == at.BURST_BYTES
    assert reader.set_hold(5000)
    assert writer.room() == 5000
    writer.append(b"y" * 5000, 0, 5)
    assert writer.room() == 0
    assert reader.tail == 5000
    writer.close()
    reader.close()


def test_the_next_hold_counts_also_where_it_leaves_no_room(path: Path) -> None:
    """Where slots had run out, a hold in the segment of the one that was passed by left no room; the writer
    took that for no answer, and overwrote what had not had its stall time."""
    writer, reader = make(path, 0)
    reader.set_hold(0)
    writer.append(b"x" * 2000, 0, 5)
    count = 0
    while writer.room():
        count += 1
        writer.append(b"y", count % 2, 5)
    assert writer.block()
    writer.pass_by()
    assert reader.set_hold(1000)
    assert writer.room() == 0
    assert reader.set_hold(2000)
    assert writer.room()
    writer.close()
    reader.close()


def test_a_chunk_stays_true_while_it_is_overwritten(path: Path) -> None:
    writer, reader = make(path, 0)
    writer.append(b"a" * at.BURST_BYTES, 0, 5)
    chunk = reader.read(0, at.BURST_BYTES)
    assert chunk is not None
    writer.append(b"b" * at.BURST_BYTES, 0, 5)
    assert chunk.data == b"a" * at.BURST_BYTES
    # Who stands beside the first one may still have the same chunk; it is right, though no longer kept.
    again = Cursor(reader, 0).take()
    assert isinstance(again, Overrun) or again is chunk
    writer.close()
    reader.close()


def layouts() -> list[bytes]:
    good = bytearray(b"".join(n.to_bytes(8, sys.byteorder) for n in (at.MAGIC, at.VERSION, 1 << 17, 2048)))
    good += bytes(at.PAGE - len(good))
    newer = bytearray(good)
    newer[8] += 1
    huge = bytearray(good)
    huge[16:24] = b"\xff" * 8
    nothing = bytearray(good)
    nothing[16:32] = bytes(16)
    return [
        b"", b"x", b"x" * at.PAGE, b"x" * 10_000, bytes(at.PAGE), bytes(1 << 20), bytes(good),
        bytes(newer) + bytes(1 << 20), bytes(huge) + bytes(1 << 20), bytes(nothing) + bytes(1 << 20),
    ]  # fmt: skip


@pytest.mark.parametrize("content", layouts())
def test_a_file_of_another_layout_is_refused_and_closed(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    before = sorted(os.listdir("/proc/self/fd"))
    for kind in (LogReader, LogWriter):
        with pytest.raises(Unavailable):
            kind(os.open(path, os.O_RDWR))
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_no_space_leaves_nothing_behind(path: Path) -> None:
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom mhnos_runtime.output import LogWriter\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))\n"
        "try: LogWriter.create(Path(sys.argv[1]), 1 << 20)\n"
        "except OSError as error: print(error.errno)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == f"{errno.EFBIG}\n"
    assert not path.exists()


def test_a_full_disk_leaves_nothing_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = sorted(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        LogWriter.create(path, 1 << 20)
    assert not path.exists()
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_file_that_is_there_is_not_touched(path: Path) -> None:
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        LogWriter.create(path, 0)
    assert path.read_bytes() == b"mine"


def test_the_disk_is_taken_at_once_and_only_for_the_owner(path: Path) -> None:
    writer, reader = make(path, 1 << 20)
    status = path.stat()
    assert status.st_blocks * 512 >= (1 << 20) + at.BURST_BYTES
    assert status.st_mode & 0o777 == 0o600
    assert not os.get_inheritable(writer.fd)
    writer.close()
    reader.close()


def test_closing_gives_everything_back(path: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(3):
        writer, reader = make(path, 0)
        writer.append(b"x", 0, 1)
        chunk = reader.read(0, 1)
        writer.close()
        reader.close()
        assert chunk is not None
        assert chunk.data == b"x"
        path.unlink()
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 0


@pytest.mark.parametrize("retention", [0, 1, 4095, 4096, 1 << 20, (1 << 20) + 1])
def test_sizes_keep_the_promise(retention: int) -> None:
    capacity, slots, size = at.sizes(retention)
    assert capacity >= retention + at.BURST_BYTES
    assert capacity % at.PAGE == 0
    assert slots * at.BYTES_PER_SLOT >= capacity
    assert size == at.PAGE + slots * 16 + capacity


@pytest.mark.parametrize(
    ("word", "value"),
    [
        *((at.W_HEAD, 2**53), (at.W_TAIL, 2), (at.W_KEPT, 2), (at.W_OPENED, 2**63)),
        *(
            (at.W_CAPACITY, 4096),
            (at.W_CAPACITY, 2**64 - 1),
            (at.W_SLOTS, 0),
            (at.W_VERSION, 2),
        ),
    ],
)
def test_a_header_that_does_not_fit_is_refused_before_anything_is_mapped(
    tmp_path: Path, word: int, value: int
) -> None:
    LogWriter.create(tmp_path / "log", 4096).close()
    with open(tmp_path / "log", "r+b") as file:
        file.seek(word * 8)
        file.write(value.to_bytes(8, sys.byteorder))
    with pytest.raises(Unavailable):
        LogReader(os.open(tmp_path / "log", os.O_RDWR))


def test_a_file_shorter_than_its_header_says_is_refused(tmp_path: Path) -> None:
    """To touch what a mapping has beyond its file's end is a SIGBUS."""
    LogWriter.create(tmp_path / "log", 4096).close()
    for size in (tmp_path / "log").stat().st_size - 1, 4096, 4095, 0:
        os.truncate(tmp_path / "log", size)
        with pytest.raises(Unavailable):
            LogReader(os.open(tmp_path / "log", os.O_RDWR))
