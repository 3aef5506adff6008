"""Input on real pipes and PTYs: order, bounds, split writes, and ends of every kind."""

from __future__ import annotations

import os
import select
import termios
import tracemalloc
import tty
from collections.abc import Callable, Iterator

import pytest

from mhnos_runtime.errors import InvalidRequest, LimitReached
from mhnos_runtime.process.client_input import ClientInput
from mhnos_runtime.process.input import MAX_PARTS, MAX_QUEUED_BYTES, InputQueue
from mhnos_runtime.process.state import NotNow


class Watch:
    """The part of an event loop that is needed, run by hand."""

    def __init__(self) -> None:
        self.writers: dict[int, Callable[[], object]] = {}

    def add_writer(self, fd: int, callback: Callable[[], object]) -> None:
        assert fd not in self.writers
        self.writers[fd] = callback

    def remove_writer(self, fd: int) -> None:
        os.fstat(fd)  # must come before the descriptor is closed
        del self.writers[fd]

    def turn(self) -> None:
        _, ready, _ = select.select([], list(self.writers), [], 0)
        for fd in ready:
            self.writers[fd]()


class Pair:
    """A queue and the end that a process would read."""

    def __init__(self, reader: int, writer: int) -> None:
        self.reader = reader
        self.watch = Watch()
        os.set_blocking(writer, False)
        os.set_blocking(reader, False)
        self.queue = InputQueue(writer, self.watch)

    def read(self, size: int = 1 << 20) -> bytes:
        try:
            return os.read(self.reader, size)
        except BlockingIOError:
            return b""

    def read_all(self) -> bytes:
        """What comes while the queue is worked off."""
        found = b""
        while True:
            self.watch.turn()
            data = self.read(10_000)
            if not data and not self.watch.writers:
                return found
            found += data

    def close(self) -> None:
        self.queue.close()
        if self.reader >= 0:
            os.close(self.reader)


@pytest.fixture
def pipe() -> Iterator[Pair]:
    pair = Pair(*os.pipe())
    yield pair
    pair.close()


@pytest.fixture
def terminal() -> Iterator[Pair]:
    master, slave = os.openpty()
    tty.setraw(slave, termios.TCSANOW)
    pair = Pair(slave, master)
    yield pair
    pair.close()


def numbered(size: int) -> bytes:
    return b"".join(number.to_bytes(4, "big") for number in range(size // 4))


def test_what_fits_is_written_at_once(pipe: Pair) -> None:
    pipe.queue.write(b"one")
    pipe.queue.write(memoryview(b"two"))
    pipe.queue.write(b"")
    assert pipe.watch.writers == {}
    assert pipe.read() == b"onetwo"


@pytest.mark.parametrize("which", ["pipe", "terminal"])
def test_what_does_not_fit_waits_in_order(which: str, request: pytest.FixtureRequest) -> None:
    pair: Pair = request.getfixturevalue(which)
    data = numbered(600_000)
    for start in range(0, len(data), 70_001):
        pair.queue.write(memoryview(data)[start : start + 70_001])
    assert pair.watch.writers
    assert pair.read_all() == data


def test_bytes_are_copied(pipe: Pair) -> None:
    """A frame's buffer is used again for the next frame."""
    pipe.queue.write(b"x" * 65536)
    frame = bytearray(b"first")
    pipe.queue.write(memoryview(frame))
    frame[:] = b"XXXXX"
    assert pipe.read_all().endswith(b"first")


def test_the_queue_is_bounded_and_takes_all_or_nothing(pipe: Pair) -> None:
    accepted = 0

    def fill() -> None:
        nonlocal accepted
        while True:
            pipe.queue.write(b"x" * 100_000)
            accepted += 100_000

    with pytest.raises(LimitReached) as refused:
        fill()
    assert (refused.value.code, refused.value.retry) == ("input-full", True)
    assert MAX_QUEUED_BYTES - 100_000 <= accepted <= MAX_QUEUED_BYTES + 65536
    pipe.queue.write(b"y")  # what fits still does
    assert pipe.read_all() == b"x" * accepted + b"y"
    pipe.queue.write(b"again")
    assert pipe.read() == b"again"


@pytest.mark.parametrize("waiting", [False, True])
@pytest.mark.parametrize("numbered", [False, True])
def test_the_first_write_is_bounded_too(pipe: Pair, waiting: bool, numbered: bool) -> None:
    """Whatever found an empty queue was kept, however large: five writes into five processes took 300 MB."""
    slot = [0] * 4
    client = ClientInput(slot) if numbered else None
    if waiting:
        pipe.queue.write(b"x" * 70_000, client)
    with pytest.raises(InvalidRequest) as refused:
        pipe.queue.write(bytes(MAX_QUEUED_BYTES + 1), client)
    assert (refused.value.code, refused.value.retry) == ("too-large", False)
    assert refused.value.hint
    assert pipe.read_all() == b"x" * (70_000 if waiting else 0)
    pipe.queue.write(bytes(MAX_QUEUED_BYTES), client)
    assert pipe.read_all() == bytes(MAX_QUEUED_BYTES)
    assert slot[1:3] == ([MAX_QUEUED_BYTES + 70_000 * waiting, 0] if numbered else [0, 0])


def test_what_would_exceed_the_bound_is_refused_whole(pipe: Pair) -> None:
    """Not even the part of it that the pipe has room for is written."""
    client = ClientInput(slot := [0] * 4)
    pipe.queue.write(b"x" * 65536, client)
    pipe.queue.write(b"x" * 10, client)
    pipe.read(4096)  # there is room in the pipe, and the event loop has not turned yet
    with pytest.raises(LimitReached):
        pipe.queue.write(bytes(MAX_QUEUED_BYTES), client)
    assert slot[1] == 65536
    assert pipe.read_all() == b"x" * (65536 + 10 - 4096)


def test_single_bytes_take_no_more_than_they_are(pipe: Pair) -> None:
    """Each waited for itself, with some 300 bytes of its own: 1 MiB of keys took 300 MB."""
    pipe.queue.write(b"x" * 65536)
    tracemalloc.start()
    try:
        for _ in range(100_000):
            pipe.queue.write(b"y")
        assert tracemalloc.get_traced_memory()[0] < 300_000
    finally:
        tracemalloc.stop()
    assert pipe.read_all() == b"x" * 65536 + b"y" * 100_000


def test_clients_that_take_turns_are_bounded(pipe: Pair) -> None:
    """What different clients typed cannot be joined, since each is told of its own bytes."""
    clients = [ClientInput([0] * 4), ClientInput([0] * 4)]
    pipe.queue.write(b"x" * 65536)

    def take_turns() -> None:
        for number in range(2 * MAX_PARTS):
            pipe.queue.write(b"y", clients[number % 2])

    with pytest.raises(LimitReached) as refused:
        take_turns()
    assert refused.value.code == "input-full"
    typed = pipe.read_all()
    assert len(typed) == 65536 + MAX_PARTS
    assert sum(client.typed for client in clients) == MAX_PARTS


@pytest.mark.parametrize("waiting", [False, True])
def test_a_process_that_closed_its_input(pipe: Pair, waiting: bool) -> None:
    """Such a write took the whole first server down."""
    if waiting:
        pipe.queue.write(b"x" * 100_000)
    os.close(pipe.reader)
    pipe.reader = -1
    if waiting:
        pipe.watch.turn()
    with pytest.raises(NotNow) as refused:
        pipe.queue.write(b"y")
    assert refused.value.code == "input-closed"
    assert pipe.queue.closed
    assert pipe.watch.writers == {}
    with pytest.raises(NotNow):
        pipe.queue.write(b"z")


def test_closing_after_writing(pipe: Pair) -> None:
    data = numbered(300_000)
    done: list[bool] = []
    pipe.queue.write(data)
    pipe.queue.close_after_writing(lambda: done.append(pipe.queue.closed))
    pipe.queue.close_after_writing(lambda: done.append(False))
    assert not done
    with pytest.raises(NotNow):
        pipe.queue.write(b"more")
    assert pipe.read_all() == data
    assert done == [True]
    assert os.read(pipe.reader, 1) == b""  # the end of input


def test_closing_when_nothing_waits(pipe: Pair) -> None:
    done: list[bool] = []
    pipe.queue.close_after_writing(lambda: done.append(True))
    assert done == [True]
    assert os.read(pipe.reader, 1) == b""


def test_closing_drops_what_waits_once(pipe: Pair) -> None:
    pipe.queue.write(b"x" * 200_000)
    fd = pipe.queue.fd
    pipe.queue.close()
    assert pipe.watch.writers == {}
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
    taken = os.dup(pipe.reader)  # takes the same number
    pipe.queue.close()
    os.fstat(taken)
    os.close(taken)


def test_a_terminal_that_is_gone(terminal: Pair) -> None:
    os.close(terminal.reader)
    terminal.reader = -1
    terminal.queue.write(b"to nobody")  # the kernel keeps it for whoever opens the terminal next
    terminal.queue.close()
    with pytest.raises(NotNow):
        terminal.queue.write(b"x")
