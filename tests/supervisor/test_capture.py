"""One process's output on its way into its log."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mhnos_runtime.output import LogWriter
from mhnos_runtime.supervisor.capture import Capture
from mhnos_runtime.supervisor.floods import FLOOD_BYTES
from mhnos_runtime.supervisor.loop import Loop
from tests.supervisor.running import turn, until


class Source:
    """A process's output that is captured here: a pipe of packets, which gives 4 KiB a read as a terminal
    does."""

    def __init__(self, loop: Loop, pid: int, directory: Path) -> None:
        self.log = LogWriter.create(directory / f"{pid}.log", 1 << 20)
        reader, self._writer = os.pipe2(os.O_DIRECT | os.O_NONBLOCK)
        self._loop = loop
        self.capture = Capture(loop, self.log, pid, {reader: 0}, False, 60, lambda _fd: None)
        self.capture.on_output = lambda: None

    def write(self, count: int) -> None:
        os.write(self._writer, b"y" * count)

    def captured(self, count: int) -> None:
        self.write(count)
        head = self.log.head
        until(self._loop, lambda: self.log.head == head + count)

    def close(self) -> None:
        self.capture.close()
        self.log.close()
        os.close(self._writer)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    """One whose pauses last until there is an answer."""
    monkeypatch.setattr("mhnos_runtime.supervisor.floods.PAUSE_SECONDS", 3600.0)
    made = Loop()
    yield made
    made.close()


@pytest.fixture
def sources(loop: Loop, tmp_path: Path) -> Iterator[tuple[Source, Source, Source]]:
    """Two that flood, and one that does not."""
    made = Source(loop, 1, tmp_path), Source(loop, 2, tmp_path), Source(loop, 3, tmp_path)
    for each in made[:2]:
        each.captured(FLOOD_BYTES)
    made[2].captured(FLOOD_BYTES - 1)
    yield made
    for each in made:
        each.close()


def test_a_flood_waits_for_an_answer_and_what_is_small_does_not(
    loop: Loop, sources: tuple[Source, Source, Source]
) -> None:
    flood, _, quiet = sources
    head = flood.log.head
    quiet.capture.typed()
    flood.write(FLOOD_BYTES)
    turn(loop)
    assert flood.log.head == head
    quiet.captured(1)
    until(loop, lambda: flood.log.head == head + FLOOD_BYTES)


def test_a_flood_that_is_typed_into_answers_first(loop: Loop, sources: tuple[Source, Source, Source]) -> None:
    """Its own pause would hold its answer up for as long as that lasts."""
    flood, other, _ = sources
    head = other.log.head
    flood.capture.typed()
    other.write(FLOOD_BYTES)
    flood.captured(FLOOD_BYTES)
    until(loop, lambda: other.log.head == head + FLOOD_BYTES)


def test_what_was_held_up_by_a_viewer_comes_back_as_a_flood(
    loop: Loop, sources: tuple[Source, Source, Source]
) -> None:
    """Else each time that a viewer moves on would be a turn beside all others."""
    flood, _, quiet = sources
    flood.log.hold_all()
    while flood.log.room():
        flood.captured(FLOOD_BYTES)
    flood.write(FLOOD_BYTES)
    turn(loop)
    flood.log.pass_by()
    quiet.capture.typed()
    head = flood.log.head
    flood.capture.resume()
    turn(loop)
    assert flood.log.head == head
    quiet.captured(1)
    until(loop, lambda: flood.log.head > head)


def test_the_rest_of_what_has_ended_waits_for_nobody(
    loop: Loop, sources: tuple[Source, Source, Source]
) -> None:
    """Nobody writes any more, and its exit would wait for it."""
    flood, _, quiet = sources
    quiet.capture.typed()
    flood.capture.drain()
    flood.captured(FLOOD_BYTES)
    flood.captured(FLOOD_BYTES)


# The end of a source


class Ends:
    """A terminal or a pipe that is captured. closed: those sources that have ended, as it was told."""

    def __init__(self, loop: Loop, directory: Path, terminal: bool) -> None:
        self.log = LogWriter.create(directory / "log", 0)
        self.closed: list[int] = []
        if terminal:
            self.reader, writer = os.openpty()
            os.set_blocking(self.reader, False)
            self.path = os.ttyname(writer)
        else:
            self.reader, writer = os.pipe2(os.O_NONBLOCK)
        self.writer = open(writer, "wb", buffering=0)  # noqa: SIM115 - closed by the tests, or by close
        self.capture = Capture(loop, self.log, 1, {self.reader: 0}, terminal, 60, self.closed.append)
        self.capture.on_output = lambda: None

    def close(self) -> None:
        self.capture.close()
        self.writer.close()
        self.log.close()


@pytest.fixture
def pipe(loop: Loop, tmp_path: Path) -> Iterator[Ends]:
    made = Ends(loop, tmp_path, terminal=False)
    yield made
    made.close()


@pytest.fixture
def terminal(loop: Loop, tmp_path: Path) -> Iterator[Ends]:
    made = Ends(loop, tmp_path, terminal=True)
    yield made
    made.close()


def test_a_pipe_ends_with_its_last_writer(loop: Loop, pipe: Ends) -> None:
    pipe.writer.write(b"last")
    pipe.writer.close()
    until(loop, lambda: bool(pipe.closed))
    assert (pipe.closed, pipe.log.head, pipe.capture.sources) == ([pipe.reader], 4, {})


def test_a_terminal_that_is_opened_again_is_read_again(
    loop: Loop, terminal: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To close it would hang up whoever lives there."""
    monkeypatch.setattr("mhnos_runtime.supervisor.capture.REOPENED_SECONDS", 0.001)
    terminal.writer.close()
    until(loop, lambda: terminal.capture._reopen_timer is not None)
    with open(terminal.path, "wb", buffering=0) as again:
        again.write(b"again")
        until(loop, lambda: terminal.log.head == 5)
    assert terminal.closed == []


def test_a_terminal_ends_once_nothing_can_open_it_again(loop: Loop, terminal: Ends) -> None:
    terminal.writer.write(b"last")
    terminal.writer.close()
    terminal.capture.drain()
    until(loop, lambda: bool(terminal.closed))
    assert (terminal.closed, terminal.log.head) == ([terminal.reader], 4)


def test_what_a_stranger_holds_open_is_read_to_what_there_was_and_closed(
    loop: Loop, pipe: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mhnos_runtime.supervisor.capture.DRAIN_SECONDS", 0.001)
    pipe.writer.write(b"x" * 10_000)
    pipe.capture.drain()
    until(loop, lambda: bool(pipe.closed))
    assert pipe.log.head == 10_000
    with pytest.raises(BrokenPipeError):
        pipe.writer.write(b"more")


def test_what_is_closed_tells_nobody_and_has_no_timer_left(loop: Loop, pipe: Ends) -> None:
    pipe.log.hold_all()
    pipe.writer.write(b"x" * 65_536)
    until(loop, lambda: pipe.log.head == 65_536)
    pipe.writer.write(b"x")
    until(loop, lambda: pipe.capture._stall_timer is not None)
    timer = pipe.capture._stall_timer
    pipe.capture.close()
    assert pipe.closed == []
    assert timer is not None
    assert timer.callback is None


# Backpressure


def test_the_wait_for_a_stalled_reader_ends_without_an_answer_too(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hung server must not hold a process up. It is told that there is something to look at."""
    monkeypatch.setattr("mhnos_runtime.supervisor.capture.SERVER_ANSWER_SECONDS", 0.001)
    log, told = LogWriter.create(tmp_path / "log", 0), []
    reader, writer = os.pipe2(os.O_NONBLOCK)
    capture = Capture(loop, log, 1, {reader: 0}, False, 0.001, lambda _fd: None)
    capture.on_output = lambda: told.append(log.hold)
    log.hold_all()
    os.write(writer, b"x" * 65_536)
    until(loop, lambda: log.head == 65_536)
    told.clear()
    os.write(writer, b"y" * 100)
    until(loop, lambda: log.head == 65_636)
    assert told == [0]
    capture.close()
    log.close()
    os.close(writer)
