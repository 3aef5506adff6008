"""Every interleaving of what the two sides of a handshake do: no wake-up is lost, and no held byte.

The real writer and reader run step by step, each step ending at a fence: between two fences the order of one
side's reads and writes of different words is open, so the steps that matter are the ones around the fences.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.output import NO_HOLD, LogReader, LogWriter
from mhnos_runtime.output import layout as at
from tests.output.model import make


class Stepped:
    """Runs an action in a thread of its own that stops at each of its fences, until it is told to go on."""

    def __init__(self, action: Callable[[], Any]) -> None:
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self.result: Any = None
        self.done = False
        self._thread = threading.Thread(target=self._run, args=(action,), daemon=True)
        self._thread.start()

    def _run(self, action: Callable[[], Any]) -> None:
        self._go.acquire()
        self.result = action()
        self.done = True
        self._stopped.release()

    def fence(self) -> None:
        self._stopped.release()
        self._go.acquire()

    def step(self) -> None:
        if not self.done:
            self._go.release()
            self._stopped.acquire()

    def finish(self) -> None:
        while not self.done:
            self.step()
        self._thread.join()


class FenceOf:
    """Stands for the fence of one side."""

    side: Stepped | None = None

    def __call__(self) -> None:
        if self.side is not None:
            self.side.fence()


@pytest.fixture
def log(tmp_path: Path) -> Any:
    writer, reader = make(tmp_path / "log", 0)
    yield writer, reader
    writer.close()
    reader.close()


STEPS = 6
ORDERS = [
    "".join("r" if number in chosen else "w" for number in range(2 * STEPS))
    for chosen in combinations(range(2 * STEPS), STEPS)
]


def interleave(
    order: str, writer: LogWriter, reader: LogReader, write: Callable[[], Any], read: Callable[[], Any]
) -> tuple[Any, Any]:
    """Run both sides' steps in the given order, then to their ends; return what both gave."""
    fences = {"w": FenceOf(), "r": FenceOf()}
    writer._fence, reader._fence = fences["w"], fences["r"]  # type: ignore[assignment]
    sides = {"w": Stepped(write), "r": Stepped(read)}
    for name, side in sides.items():
        fences[name].side = side
    for name in order:
        sides[name].step()
    for side in sides.values():
        side.finish()
    for fence in fences.values():
        fence.side = None
    return sides["w"].result, sides["r"].result


def test_no_wake_up_is_lost(log: tuple[LogWriter, LogReader]) -> None:
    """A reader that sleeps is woken by the byte that came while it went to sleep."""
    writer, reader = log
    both = 0
    for order in ORDERS[:: max(1, len(ORDERS) // 200)]:
        offset = reader.head
        woken, sleeps = interleave(
            order,
            writer,
            reader,
            lambda: writer.append(b"x", 0, 1),
            partial(reader.park, offset),
        )
        assert woken or not sleeps, order
        both += woken and not sleeps
    assert both  # the orders do differ


def test_two_bytes_and_a_reader_that_parks_again(log: tuple[LogWriter, LogReader]) -> None:
    writer, reader = log

    def write() -> list[bool]:
        return [writer.append(b"x", 0, 1), writer.append(b"y", 0, 1)]

    for order in ORDERS[:: max(1, len(ORDERS) // 200)]:
        start = reader.head

        def read(start: int = start) -> int:
            """Sleep as soon as there is nothing more; the offset at which it fell asleep."""
            offset = start
            while not reader.park(offset):
                chunk = reader.read(offset, 100)
                assert chunk is not None
                offset = chunk.next
            return offset

        woken, asleep_at = interleave(order, writer, reader, write, read)
        assert asleep_at == reader.head or any(woken), order
        writer.append(b"-", 0, 1)  # wakes whoever still sleeps


def test_a_writer_that_waits_is_told_or_sees_it(log: tuple[LogWriter, LogReader]) -> None:
    """Either the reader learns that it has to tell, or the writer finds the room by itself."""
    writer, reader = log
    for order in ORDERS[:: max(1, len(ORDERS) // 200)]:
        writer.unblock()
        reader.set_hold(max(0, reader.head - reader.capacity))
        while room := writer.room():
            writer.append(b"x" * room, 0, 1)
        held = reader.hold
        waits, tell = interleave(order, writer, reader, writer.block, partial(reader.set_hold, held + 10))
        assert tell or not waits, order
        reader.set_hold(NO_HOLD)


def test_what_is_read_while_it_is_overwritten_is_thrown_away(log: tuple[LogWriter, LogReader]) -> None:
    """Each chunk is what was written at its offset, at whichever of its fences the reader is overtaken."""
    writer, reader = log

    def content(offset: int, count: int) -> bytes:
        return bytes((offset + number) // 7 % 256 for number in range(count))

    writer.append(content(0, at.BURST_BYTES), 0, 1)
    for order in ORDERS[:: max(1, len(ORDERS) // 60)]:
        offset = reader.tail

        def write() -> None:
            for _ in range(3):
                head = writer.head
                writer.append(content(head, 30_000), head // 30_000 % 2, 1)

        _, chunk = interleave(order, writer, reader, write, partial(reader.read, offset, 50_000))
        if chunk is not None:
            assert chunk.data == content(chunk.offset, len(chunk.data)), order
        else:
            assert reader.tail > offset
