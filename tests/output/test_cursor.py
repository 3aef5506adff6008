"""One reader, from offset to offset: every byte, or the overrun in front of it."""

from __future__ import annotations

from pathlib import Path

from mhnos_runtime.output import Chunk, Cursor, LogReader, Overrun
from mhnos_runtime.output import layout as at
from tests.output.model import make, slots_of


def read_all(reader: LogReader, offset: int) -> list[tuple[int, int, bytes]]:
    cursor, found = Cursor(reader, offset), []
    while (item := cursor.take()) is not None:
        found.append(
            (-1, item.from_, b"") if isinstance(item, Overrun) else (item.stream, item.offset, item.data)
        )
    return found


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


def test_it_moves_over_what_it_hands_out_and_over_nothing_else(path: Path) -> None:
    writer, reader = make(path, 0)
    cursor = Cursor(reader, 0)
    assert cursor.take() is None
    writer.append(b"abc", 0, 5)
    assert cursor.lag == 3
    chunk = cursor.take(2)
    assert isinstance(chunk, Chunk)
    assert (chunk.data, cursor.offset, cursor.lag) == (b"ab", 2, 1)
    writer.append(b"x" * at.BURST_BYTES, 0, 5)
    overrun = cursor.take()
    assert isinstance(overrun, Overrun)
    assert (overrun.from_, overrun.to, cursor.offset) == (2, 3, 3)
    assert cursor.lag == at.BURST_BYTES
    writer.close()
    reader.close()


def test_one_beyond_the_head_waits_for_it(path: Path) -> None:
    """A client says where it was; the log may be another one, and shorter."""
    writer, reader = make(path, 0)
    cursor = Cursor(reader, 5)
    assert (cursor.take(), cursor.lag) == (None, -5)
    writer.append(b"abcdef", 0, 5)
    chunk = cursor.take()
    assert isinstance(chunk, Chunk)
    assert chunk.data == b"f"
    writer.close()
    reader.close()
