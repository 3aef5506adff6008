"""One process writes at full speed, another reads: every byte, or the exact gap. Bounded by bytes."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mhnos_runtime.output import Chunk, Cursor, LogReader, Overrun
from tests.output import flood
from tests.output.model import make, open_reader

TOTAL = 6 << 20


def start(path: Path, seed: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, flood.__file__, str(path), str(TOTAL), str(seed)])


def checked(item: Chunk) -> Chunk:
    assert item.data == flood.content(item.offset, len(item.data)), f"wrong bytes at {item.offset}"
    assert item.stream == flood.stream_of(item.offset) == flood.stream_of(item.next - 1)
    return item


@pytest.mark.parametrize("seed", [1, 2])
def test_two_readers_that_hold_get_every_byte(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "log"
    writer, reader = make(path, 0)
    writer.close()
    reader.set_hold(0)
    cursors = [Cursor(reader, 0), Cursor(open_reader(path), 0)]
    digests = [hashlib.sha256(), hashlib.sha256()]
    deadline = time.monotonic() + 40
    with start(path, seed):
        while min(cursor.offset for cursor in cursors) < TOTAL:
            assert time.monotonic() < deadline
            for number, limit in ((0, 70_000), (1, 3001)):
                item = cursors[number].take(limit)
                assert not isinstance(item, Overrun)
                if item is not None:
                    digests[number].update(checked(item).data)
            reader.set_hold(min(cursor.offset for cursor in cursors))
    expected = hashlib.sha256(b"".join(flood.content(n << 16, 1 << 16) for n in range(TOTAL >> 16))).digest()
    assert [digest.digest() for digest in digests] == [expected, expected]
    close(cursors)


@pytest.mark.parametrize("seed", [3, 4])
def test_readers_that_do_not_hold_get_true_bytes_and_exact_gaps(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "log"
    writer, reader = make(path, 0)
    writer.close()
    cursors = [Cursor(reader, 0), Cursor(open_reader(path), 0)]
    seen = [0, 0]
    deadline = time.monotonic() + 40
    with start(path, seed):
        while min(cursor.offset for cursor in cursors) < TOTAL:
            assert time.monotonic() < deadline
            for number, limit in ((0, 65_536), (1, 500)):
                cursor = cursors[number]
                offset = cursor.offset
                item = cursor.take(limit)
                if isinstance(item, Overrun):
                    assert item.from_ == offset < item.to == cursor.offset
                elif item is not None:
                    assert item.offset == offset
                    seen[number] += len(checked(item).data)
                    before = cursor.log.before(item.offset, item.stream, 3)
                    assert cursor.log.tail > item.offset - 3 or before_is_true(before, item)
    assert all(seen)
    close(cursors)


def before_is_true(before: bytes, item: Chunk) -> bool:
    """What stood in front, in the same stream; the stretch may have begun just here."""
    if not before or flood.stream_of(max(0, item.offset - len(before))) != item.stream:
        return True
    return before == flood.content(item.offset - len(before), len(before))


def close(cursors: list[Cursor]) -> None:
    logs: list[LogReader] = [cursor.log for cursor in cursors]
    for log in logs:
        log.close()
