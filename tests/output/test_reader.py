"""What readers see of a log, and how they ask to be woken or waited for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mhnos_runtime.output import NO_HOLD, Cursor, LogReader, LogWriter
from mhnos_runtime.output import layout as at
from tests.output.model import make


def test_an_empty_log_has_nothing_to_give(path: Path) -> None:
    writer, reader = make(path, 4096)
    assert (reader.head, reader.tail, reader.hold) == (0, 0, NO_HOLD)
    assert Cursor(reader, 0).take() is None
    assert reader.before(0, 0, 3) == b""
    assert reader.since(0) == 0
    assert reader.park(0)
    writer.close()
    reader.close()


@pytest.fixture
def log(path: Path) -> Iterator[tuple[LogWriter, LogReader]]:
    writer, reader = make(path, 4096)
    yield writer, reader
    writer.close()
    reader.close()


def test_one_that_parks_is_woken_once_by_the_next_byte(log: tuple[LogWriter, LogReader]) -> None:
    writer, reader = log
    assert writer.append(b"a", 0, 5) is False  # nobody sleeps
    assert reader.park(0) is False  # there is something already
    assert writer.append(b"b", 0, 5) is True  # it may have slept all the same
    assert reader.park(2)
    assert writer.append(b"c", 0, 5) is True
    assert writer.append(b"d", 0, 5) is False


def test_a_chunk_ends_with_its_stream_and_at_the_limit(log: tuple[LogWriter, LogReader]) -> None:
    writer, reader = log
    for data, stream in ((b"aaaa", 0), (b"bb", 1), (b"cc", 0)):
        writer.append(data, stream, 5)
    found = [reader.read(offset, limit) for offset, limit in ((0, 3), (3, 100), (4, 100), (7, 1))]
    assert [(each.data, each.stream, each.next) for each in found if each] == [
        (b"aaa", 0, 3),
        (b"a", 0, 4),
        (b"bb", 1, 6),
        (b"c", 0, 8),
    ]
    assert reader.read(8, 100) is None


def test_readers_that_stand_beside_each_other_share_one_copy(log: tuple[LogWriter, LogReader]) -> None:
    writer, reader = log
    writer.append(b"shared", 0, 5)
    first = reader.read(0, 100)
    assert reader.read(0, 100) is first
    reader.forget()
    again = reader.read(0, 100)
    assert again is not first
    assert again is not None
    assert again.data == b"shared"


def test_what_stood_before_in_one_stream_is_found_behind_the_other(log: tuple[LogWriter, LogReader]) -> None:
    writer, reader = log
    for data, stream in ((b"ab", 0), (b"XY", 1), (b"cd", 0)):
        writer.append(data, stream, 5)
    assert reader.before(6, 0, 3) == b"bcd"
    assert reader.before(5, 0, 100) == b"abc"
    assert reader.before(6, 1, 3) == b"XY"
    assert reader.before(0, 0, 3) == b""


def test_a_chunk_bears_the_time_of_its_own_bytes(log: tuple[LogWriter, LogReader]) -> None:
    """A replay of many seconds bore the time of its first one."""
    writer, reader = log
    for number in range(3):
        writer.append(b"x" * 10, 0, 10_000 + 1000 * number)
    found = [reader.read(offset, 100) for offset in (0, 10, 15, 20)]
    assert [(each.next, each.time_ms) for each in found if each] == [
        (10, 10_000),
        (20, 11_000),
        (20, 11_000),
        (30, 12_000),
    ]


def test_a_time_is_found_by_the_first_segment_that_may_hold_it(log: tuple[LogWriter, LogReader]) -> None:
    writer, reader = log
    for number in range(3):
        writer.append(b"x" * 10, 0, 10_000 * number)
    times = (0, 999, 1000, 10_999, 11_000, 20_000, 20_999, 21_000)
    assert [reader.since(ms) for ms in times] == [0, 0, 10, 10, 20, 20, 20, 30]


def test_times_are_told_in_pages_of_what_is_kept(
    log: tuple[LogWriter, LogReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, reader = log
    assert reader.times(0) == ([], None)
    monkeypatch.setattr(at, "TIMES_SEGMENTS", 3)
    for number in range(5):
        writer.append(b"x" * 10, 0, 10_000 * number)
    assert reader.times(0) == ([(0, 0), (10, 10_000), (20, 20_000)], 30)
    assert reader.times(30) == ([(30, 30_000), (40, 40_000)], None)
    assert reader.times(15) == ([(15, 10_000), (20, 20_000), (30, 30_000)], 40)
    assert reader.times(50) == ([], None)
    writer.reserve(at.BURST_BYTES)
    tail = reader.tail
    assert reader.times(0)[0][0] == (tail, 10_000 * (tail // 10))


def test_times_that_are_near_are_told_once(log: tuple[LogWriter, LogReader]) -> None:
    writer, reader = log
    for number in range(100):
        writer.append(b"x", number % 2, 5000 + 10 * number)
    assert reader.times(0) == ([(0, 5000), (25, 5250), (50, 5500), (75, 5750)], None)
    writer.append(b"x", 0, 4000)  # the clock was set back
    assert reader.times(0)[0][-1] == (100, 4000)


def test_times_of_what_is_no_longer_kept_are_not_told(tmp_path: Path) -> None:
    """Its segment still is, until the next one opens: two pieces began at the same offset."""
    writer, reader = make(tmp_path / "log", 0)
    writer.append(b"a", 0, 5000)
    writer.reserve(writer.room())
    writer.append(b"b", 0, 4000)
    assert (reader.tail, reader.times(0)) == (1, ([(1, 4000)], None))
    reader.close()
    writer.close()


def test_what_is_promised_stays_while_a_burst_is_read(log: tuple[LogWriter, LogReader]) -> None:
    """What is kept beyond that may go at any moment, so that nobody is sent there."""
    writer, reader = log
    writer.append(b"x" * at.BURST_BYTES, 0, 5)
    assert (reader.tail, reader.oldest) == (0, at.BURST_BYTES - 4096)
    writer.reserve(at.BURST_BYTES)
    assert reader.tail == reader.oldest
