"""Whoever types is answered first: floods of others are held back meanwhile, their own output never is."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mhnos_runtime.channel import TYPED
from mhnos_runtime.output import LogWriter
from mhnos_runtime.supervisor import attention, loop
from mhnos_runtime.supervisor.attention import TYPING_SECONDS, Attention
from mhnos_runtime.supervisor.capture import ANSWER_BYTES, Capture
from mhnos_runtime.supervisor.loop import PAUSE_SECONDS, Loop
from tests.supervisor.harness import Seen, Server

#: What a PTY gives at most in one read.
READ = 4096
READS_A_PAUSE = max(1, len(os.sched_getaffinity(0)) // 2)

FLOOD = "import os, tty; tty.setraw(1)\nwhile True: os.write(1, b'y' * 65536)\n"
TERMINAL = (80, 24)


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(attention, "time", made)
    monkeypatch.setattr(loop, "time", made)
    return made


@pytest.fixture
def turning() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def test_nobody_types_at_first(clock: Clock, turning: Loop) -> None:
    assert not Attention(turning).only(1000)


def test_one_who_types_alone_waits_for_nobody(clock: Clock, turning: Loop) -> None:
    where = Attention(turning)
    where.typed(1)
    assert (where.only(1), where.only(2)) == (True, False)
    clock.now += TYPING_SECONDS
    assert not where.only(1)


def test_of_several_who_type_each_has_others(clock: Clock, turning: Loop) -> None:
    where = Attention(turning)
    for pid in (1, 2, 3, 2):
        where.typed(pid)
        clock.now += TYPING_SECONDS / 4
        assert where.only(pid) == (pid == 1)
    # The last key into 3 is half of the time ago.
    clock.now += TYPING_SECONDS / 2
    assert where.only(2)
    assert not where.only(3)


class Source:
    """A process's output that is captured here: a pipe of packets, which gives 4 KiB a read as a terminal
    does."""

    def __init__(self, turning: Loop, where: Attention, pid: int, directory: Path) -> None:
        self.log = LogWriter.create(directory / f"{pid}.log", 1 << 20)
        reader, self._writer = os.pipe2(os.O_DIRECT | os.O_NONBLOCK)
        self.fd = reader
        self.written = 0
        self._turning = turning
        self.capture = Capture(turning, where, self.log, pid, {reader: 0}, False, 60, lambda _fd: None)
        self.capture.on_output = lambda: None

    def write(self, packets: int) -> None:
        """Let so many packets be written and captured."""
        for _ in range(packets):
            self.written += os.write(self._writer, b"y" * READ)
        until(self._turning, lambda: self.log.head == self.written)

    def close(self) -> None:
        self.capture.close()
        self.log.close()
        os.close(self._writer)


def until(turning: Loop, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20

    def look() -> None:
        assert time.monotonic() < end
        if condition():
            turning.stop()
        else:
            turning.after(0, look)

    turning.after(0, look)
    turning.run()


@pytest.fixture
def source(
    turning: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[int], Source]]:
    """Makes sources that share one attention, which lasts."""
    monkeypatch.setattr(attention, "TYPING_SECONDS", 60.0)
    where = Attention(turning)
    with contextlib.ExitStack() as stack:

        def make(pid: int) -> Source:
            made = Source(turning, where, pid, tmp_path)
            stack.callback(made.close)
            return made

        yield make


def test_bulk_is_held_back_while_somebody_types_elsewhere(
    turning: Loop, source: Callable[[int], Source]
) -> None:
    flood, quiet = source(1), source(2)
    flood.write(4)
    assert not turning.held_back(flood.fd)
    quiet.capture.typed()
    assert turning.held_back(flood.fd)
    flood.write(16)
    assert turning.held_back(flood.fd)
    assert not turning.held_back(quiet.fd)


def test_an_answer_of_some_screens_is_not_held_back(turning: Loop, source: Callable[[int], Source]) -> None:
    """A page of an editor is several reads, and each would wait for its turn between floods."""
    editor, quiet = source(1), source(2)
    quiet.capture.typed()
    editor.capture.typed()
    quiet.capture.typed()
    for _ in range(ANSWER_BYTES // READ // 8):
        assert not turning.held_back(editor.fd)
        editor.write(8)
    editor.write(1)
    assert turning.held_back(editor.fd)
    editor.capture.typed()
    assert not turning.held_back(editor.fd)


def test_what_one_starts_by_typing_is_not_held_back_by_it(
    turning: Loop, source: Callable[[int], Source]
) -> None:
    """`cat` of a large file would take a moment longer than it has to, after each Enter."""
    mine, other = source(1), source(2)
    mine.capture.typed()
    for _ in range(2 * ANSWER_BYTES // READ // 8):
        mine.write(8)
        assert not turning.held_back(mine.fd)
    other.capture.typed()
    mine.write(1)
    assert turning.held_back(mine.fd)


def test_what_waited_for_a_viewer_comes_back_as_bulk(turning: Loop, source: Callable[[int], Source]) -> None:
    """Else each time that a viewer moves on would be a turn beside all others."""
    flood, quiet = source(1), source(2)
    quiet.capture.typed()
    flood.log.hold_all()
    flood.write(16)
    while flood.log.room():
        flood.write(1)
    os.write(flood._writer, b"y" * READ)
    until(turning, lambda: not turning.held_back(flood.fd))
    flood.log.pass_by()
    flood.capture.resume()
    assert turning.held_back(flood.fd)


def test_the_rest_of_what_has_ended_is_not_held_back(turning: Loop, source: Callable[[int], Source]) -> None:
    """Nobody writes any more, and its exit would wait for it."""
    flood, quiet = source(1), source(2)
    flood.write(4)
    quiet.capture.typed()
    assert turning.held_back(flood.fd)
    flood.capture.drain()
    assert not turning.held_back(flood.fd)
    flood.write(8)
    assert not turning.held_back(flood.fd)


def test_the_turns_of_what_is_held_back_have_pauses(turning: Loop) -> None:
    """And what is not bulk has none; after the time there are none for anybody."""
    pipes = [os.pipe() for _ in range(4)]
    echo = pipes[3][0]
    turns: list[float] = []
    echoes = 0

    def take(fd: int) -> None:
        nonlocal echoes
        if fd == echo:
            echoes += 1
        else:
            turns.append(time.monotonic())
            turning.set_bulk(fd, True)

    for reader, writer in pipes:
        os.write(writer, b"x")
        turning.watch(reader, lambda reader=reader: take(reader))  # type: ignore[misc]
    begin = time.monotonic()
    turning.hold_back(0.05)
    until(turning, lambda: time.monotonic() > begin + 0.06)
    held = [turn for turn in turns[3:] if turn < begin + 0.05]
    assert len(held) <= (0.05 / PAUSE_SECONDS + 1) * READS_A_PAUSE
    assert echoes > len(held)
    count = 100 * READS_A_PAUSE
    until(turning, lambda: len(turns) > count and turns[-1] - turns[-count] < 50 * PAUSE_SECONDS)
    for fd in (fd for ends in pipes for fd in ends):
        os.close(fd)


# With a supervisor


def grown(server: Server, flood: Seen, typing: tuple[Seen, ...]) -> bool:
    """Whether a flood goes on faster than what is held back can, while keys are typed."""
    begin, first = time.monotonic(), flood.log.head
    end = begin + 0.1
    while time.monotonic() < end:
        for each in typing:
            server.channel.notify(TYPED, each.pid)
        server.pump(10)
    turns = ((time.monotonic() - begin) / PAUSE_SECONDS + 2) * READS_A_PAUSE
    return flood.log.head - first > turns * READ


def test_a_flood_gives_way_to_whoever_types_elsewhere(server: Server) -> None:
    flood, quiet = server.python(FLOOD, pty=TERMINAL), server.spawn("cat", pty=TERMINAL)
    server.until(lambda: grown(server, flood, ()), "the flood")
    server.until(lambda: not grown(server, flood, (quiet,)), "that it is held back")
    server.until(lambda: grown(server, flood, ()), "the flood again")
    server.until(lambda: grown(server, flood, (flood,)), "the flood although somebody types into it")
    assert not set(flood.output()) - set(b"y")
    server.kill(flood, signal.SIGKILL)
    assert server.ended(flood).bytes == flood.log.head


def test_an_unknown_or_ended_process_that_is_typed_into_is_nobody(server: Server) -> None:
    ended = server.sh("exit 3", pty=TERMINAL)
    server.ended(ended)
    for pid in (ended.pid, 4_000_000_000, 0):
        server.channel.notify(TYPED, pid)
        server.channel.notify(b"?", pid)
    assert server.ended(server.sh("exit 4")).code == 4
