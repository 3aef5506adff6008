"""Reading what PTYs and pipes have: as much as there is, for a turn."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from mhnos_runtime.supervisor import sources


@pytest.fixture
def packets() -> Iterator[int]:
    """Like a terminal that is full: each read gives 4 KiB, four times."""
    reader, writer = os.pipe2(os.O_DIRECT | os.O_NONBLOCK)
    for letter in (b"a", b"b", b"c", b"d"):
        os.write(writer, letter * 4096)
    yield reader
    os.close(reader)
    os.close(writer)


def fill(fd: int, *sizes: int) -> tuple[bytes, bool | None]:
    """What was read into two pieces of these sizes."""
    pieces = [bytearray(size) for size in sizes]
    count, more = sources.fill(fd, *map(memoryview, pieces))  # type: ignore[arg-type]
    return b"".join(pieces)[:count], more


def test_a_turn_ends_in_time_though_there_is_more(packets: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each read wakes the writer, which ran before the next: a burst took as long as all of that together."""
    ticks = iter([0.0, 0.0001, 1.0])
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: next(ticks))
        assert fill(packets, 65536, 0) == (b"a" * 4096 + b"b" * 4096, True)
    assert fill(packets, 65536, 0) == (b"c" * 4096 + b"d" * 4096, False)


@pytest.mark.parametrize("reads", range(1, 5))
def test_a_turn_that_ends_anywhere_leaves_no_hole(
    packets: int, reads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the ring begins anew, two pieces are filled, and a turn may end in either."""
    ticks = iter([0.0] * reads + [1.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks))
    whole = b"".join(letter * 4096 for letter in (b"a", b"b", b"c", b"d"))
    assert fill(packets, 6000, 20000) == (whole[: reads * 4096], True)


def test_what_fits_no_more_stays(packets: int) -> None:
    assert fill(packets, 3000, 2000) == (b"a" * 4096 + b"b" * 904, False)


def test_the_end_of_a_source_is_told_with_what_it_had() -> None:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    assert fill(reader, 10, 0) == (b"", False)
    os.write(writer, b"end")
    assert sources.readable_bytes(reader) == 3
    os.close(writer)
    assert fill(reader, 10, 0) == (b"end", False)
    assert fill(reader, 10, 0) == (b"", None)
    os.close(reader)
    assert sources.readable_bytes(reader) == 0


def test_a_terminal_that_nobody_has_open_is_at_its_end_for_now() -> None:
    """The kernel says so by an error (EIO), and no longer when it is opened again."""
    reader, writer = os.openpty()
    path = os.ttyname(writer)
    os.close(writer)
    assert fill(reader, 10, 0) == (b"", None)
    with open(path, "wb", buffering=0) as again:
        again.write(b"x")
        assert fill(reader, 10, 0) == (b"x", False)
    os.close(reader)
