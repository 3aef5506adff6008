"""Input and sizes, on real terminals and pipes, with a clock that the test moves."""

from __future__ import annotations

import os
import termios
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mhnos_runtime.errors import InvalidRequest, LimitReached, NotFound
from mhnos_runtime.process.client_input import ClientInput
from mhnos_runtime.process.input import MAX_QUEUED_BYTES
from mhnos_runtime.process.state import NotNow
from mhnos_runtime.process.table import Process
from mhnos_runtime.server.processes.terminals import SETTLE_SECONDS, TYPED_SECONDS, Terminals, WindowSize
from tests.server.processes.scene import SIZE, Link, ManualLoop, Processes, drained, ended, is_open, turns

Write = Callable[[Terminals, Process, bytes], None]
SMALLER = (SIZE[0], SIZE[1] - 1)


@pytest.fixture
def terminals(loop: Any, link: Any) -> Terminals:
    return Terminals(loop, link, "latest")


@pytest.fixture
def scene(terminals: Terminals, processes: Processes) -> tuple[Terminals, Process, int]:
    return terminals, *processes.on_pipe()


def size(fd: int) -> tuple[int, int]:
    rows, columns = termios.tcgetwinsize(fd)
    return columns, rows


def raw(fd: int) -> None:
    """No echo, no lines: what is typed can be read at once."""
    attributes = termios.tcgetattr(fd)
    attributes[3] &= ~(termios.ICANON | termios.ECHO)
    termios.tcsetattr(fd, termios.TCSANOW, attributes)


def write(terminals: Terminals, process: Process, data: bytes) -> None:
    terminals.write(process, data)


def write_numbered(terminals: Terminals, process: Process, data: bytes) -> None:
    client = terminals.open_input(process, "client")
    terminals.write_numbered(process, client, client.accepted, memoryview(data))


WAYS = pytest.mark.parametrize("way", [write, write_numbered])


# Keys: the supervisor is told of a key before it is written, so that floods wait for its answer.


@WAYS
def test_a_key_is_told_before_it_is_written(
    way: Write, terminals: Terminals, processes: Processes, link: Link, loop: ManualLoop
) -> None:
    """An answer that came before the notice ended no pause, which then lasted for as long as pauses may."""
    process, slave = processes.on_terminal()
    raw(slave)
    os.set_blocking(slave, False)
    written: list[bytes] = []
    loop.clock.let_pass(1000)
    link.on_asked = lambda: written.append(drained(slave))
    way(terminals, process, b"x")
    assert (written, drained(slave)) == ([b""], b"x")


@WAYS
def test_keys_that_follow_at_once_are_told_once(
    way: Write, terminals: Terminals, processes: Processes, link: Link, loop: ManualLoop
) -> None:
    process, _ = processes.on_terminal()
    loop.clock.let_pass(1000)
    for _ in range(3):
        way(terminals, process, b"x")
    assert link.asked == [("typed", 1000)]
    loop.clock.let_pass(TYPED_SECONDS)
    way(terminals, process, b"x")
    assert link.asked == [("typed", 1000)] * 2


@WAYS
def test_data_for_a_pipe_is_no_key(
    way: Write, terminals: Terminals, processes: Processes, link: Link
) -> None:
    process, reading = processes.on_pipe()
    way(terminals, process, b"data")
    assert (drained(reading), link.asked) == (b"data", [])


# Input that is refused


@WAYS
def test_after_the_end_nothing_is_typed(
    way: Write, terminals: Terminals, processes: Processes, link: Link
) -> None:
    process, _ = processes.on_terminal()
    client = terminals.open_input(process, "client")
    process.end(ended())
    with pytest.raises(NotNow) as refused:
        way(terminals, process, b"x")
    assert refused.value.code == "input-closed"
    assert (link.asked, client.accepted) == ([], 0)


@WAYS
def test_where_there_is_no_input_nothing_is_typed(
    way: Write, terminals: Terminals, processes: Processes
) -> None:
    """Under an earlier server it was closed; the process goes on."""
    process = processes.make()
    with pytest.raises(NotFound) as refused:
        way(terminals, process, b"x")
    assert refused.value.code == "input-closed"


@WAYS
def test_a_program_that_closed_its_input_takes_no_more(
    way: Write, terminals: Terminals, processes: Processes
) -> None:
    process, reading = processes.on_pipe()
    os.close(processes.given_up(reading))
    for _ in range(2):
        with pytest.raises(NotNow):
            way(terminals, process, b"x")


def test_a_full_queue_refuses_whole_parts(terminals: Terminals, processes: Processes) -> None:
    process, reading = processes.on_pipe()
    client = terminals.open_input(process, "client")
    terminals.write_numbered(process, client, 0, memoryview(bytes(MAX_QUEUED_BYTES)))
    accepted = client.accepted
    with pytest.raises(LimitReached) as refused:
        terminals.write_numbered(process, client, accepted, memoryview(bytes(MAX_QUEUED_BYTES)))
    assert (refused.value.code, client.accepted) == ("input-full", accepted)
    with pytest.raises(InvalidRequest) as too_large:
        terminals.write(process, bytes(MAX_QUEUED_BYTES + 1))
    assert too_large.value.code == "too-large"
    assert drained(reading)


# Numbered input


def test_what_was_accepted_is_not_typed_again(terminals: Terminals, processes: Processes) -> None:
    process, reading = processes.on_pipe()
    client = terminals.open_input(process, "client")
    for offset, data in ((0, b"abc"), (0, b"abc"), (1, b"bcd"), (2, b""), (4, b"e")):
        terminals.write_numbered(process, client, offset, memoryview(data))
    with pytest.raises(InvalidRequest) as refused:
        terminals.write_numbered(process, client, 6, memoryview(b"g"))
    assert refused.value.code == "input-gap"
    assert (drained(reading), client.accepted, client.typed) == (b"abcde", 5, 5)
    assert terminals.open_input(process, "client") is client
    assert terminals.open_input(process, "another") is not client


def test_a_repetition_after_the_end_is_no_error(terminals: Terminals, processes: Processes) -> None:
    """The client has not heard of what it typed; and it need not hear that it is too late."""
    process, _ = processes.on_pipe()
    client = terminals.open_input(process, "client")
    terminals.write_numbered(process, client, 0, memoryview(b"abc"))
    process.end(ended())
    terminals.write_numbered(process, client, 0, memoryview(b"abc"))
    assert client.accepted == 3


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=8))
def test_each_byte_is_typed_once_however_it_is_repeated(
    scene: tuple[Terminals, Process, int], text: bytes, parts: list[tuple[int, int]]
) -> None:
    terminals, process, reading = scene
    client = ClientInput([0, 0, 0, 0])
    for start, count in (*parts, (len(text), len(text))):
        offset = min(start, client.accepted)
        terminals.write_numbered(process, client, offset, memoryview(text)[offset : offset + count])
    terminals.write_numbered(process, client, 0, memoryview(text))
    assert drained(reading) == text


# The end of the input


def test_the_end_of_a_terminals_input_is_a_character(
    terminals: Terminals, processes: Processes, link: Link
) -> None:
    process, slave = processes.on_terminal()
    terminals.close_stdin(process)
    assert os.read(slave, 10) == b"", "the line discipline has made an end of it"
    assert process.input is not None
    assert (process.input.closed, link.of("close_stdin")) == (False, [])


async def test_the_end_of_a_pipe_comes_behind_what_waits(
    terminals: Terminals, processes: Processes, link: Link
) -> None:
    process, reading = processes.on_pipe()
    text = os.urandom(300_000)
    terminals.write(process, text)
    for _ in range(2):
        terminals.close_stdin(process)
    assert link.asked == []
    read = b""
    while part := drained(reading):
        read += part
        await turns()
    assert read == text
    assert link.asked == [("close_stdin", 1000)]
    terminals.close_stdin(process)
    with pytest.raises(NotNow):
        terminals.write(process, b"x")


def test_the_end_of_no_input_is_no_error(terminals: Terminals, processes: Processes, link: Link) -> None:
    over, _ = processes.on_pipe()
    over.end(ended())
    for process in (over, processes.make(1001)):
        terminals.close_stdin(process)
    assert link.asked == []


# Sizes


def test_a_size_is_set_and_told_and_set_again(
    terminals: Terminals, processes: Processes, link: Link, loop: ManualLoop
) -> None:
    process, slave = processes.on_terminal()
    terminals.resize(process, "client", 100, 50)
    assert (size(slave), process.size) == ((100, 50), (100, 50))
    assert link.asked == [("size", 1000, 100, 50)]
    termios.tcsetwinsize(slave, (SIZE[1], SIZE[0]))
    loop.clock.let_pass(SETTLE_SECONDS)
    assert size(slave) == (100, 50)
    assert loop.clock.waiting == 0


def test_sizes_that_follow_each_other_settle_once(
    terminals: Terminals, processes: Processes, loop: ManualLoop
) -> None:
    process, slave = processes.on_terminal()
    other, _ = processes.on_terminal(1001)
    for columns in range(100, 110):
        terminals.resize(process, "client", columns, 50)
        terminals.resize(other, "client", columns, 50)
        loop.clock.let_pass(SETTLE_SECONDS * 0.9)
    assert loop.clock.waiting == 2, "one for each terminal"
    loop.clock.let_pass(SETTLE_SECONDS)
    assert (size(slave), loop.clock.waiting) == ((109, 50), 0)


SMALL, LARGE, WIDE = (70, 40), (200, 60), (250, 20)


@pytest.mark.parametrize(
    ("window_size", "of_all", "without_the_last"),
    [("latest", WIDE, LARGE), ("smallest", (70, 20), (70, 40)), ("largest", (250, 60), (200, 60))],
)
def test_the_size_of_several_clients_is_the_one_that_is_set(
    window_size: WindowSize,
    of_all: tuple[int, int],
    without_the_last: tuple[int, int],
    processes: Processes,
    link: Any,
    loop: Any,
) -> None:
    """A person who left behind a terminal of one window's size found it so for the other one's ever after."""
    terminals = Terminals(loop, link, window_size)
    process, slave = processes.on_terminal()
    for client in (SMALL, LARGE, WIDE):
        terminals.resize(process, client, *client)
    assert size(slave) == of_all
    terminals.leave(process, WIDE)
    assert size(slave) == without_the_last
    terminals.leave(process, LARGE)
    assert size(slave) == SMALL


def test_the_last_client_that_leaves_leaves_its_size(terminals: Terminals, processes: Processes) -> None:
    process, slave = processes.on_terminal()
    for client, columns in (("one", 100), ("other", 90), ("one", 110)):
        terminals.resize(process, client, columns, 50)
    terminals.leave(process, "nobody")
    assert size(slave) == (110, 50), "the one that changed last counts"
    terminals.leave(process, "one")
    terminals.leave(process, "other")
    assert (size(slave), process.size) == ((90, 50), (90, 50))


def test_to_leave_what_has_ended_is_no_error(terminals: Terminals, processes: Processes, link: Link) -> None:
    process, _ = processes.on_terminal()
    terminals.resize(process, "one", 100, 50)
    terminals.resize(process, "other", 90, 50)
    process.end(ended())
    asked = list(link.asked)
    terminals.leave(process, "other")
    assert link.asked == asked


def test_a_repaint_is_two_sizes(
    terminals: Terminals, processes: Processes, link: Link, loop: ManualLoop
) -> None:
    process, slave = processes.on_terminal()
    terminals.repaint(process)
    assert (size(slave), process.size) == (SMALLER, SIZE)
    loop.clock.let_pass(SETTLE_SECONDS * 0.9)
    assert size(slave) == SMALLER
    loop.clock.let_pass(SETTLE_SECONDS * 0.1 + 0.001)
    assert (size(slave), link.asked) == (SIZE, [])


def test_a_terminal_of_one_row_is_repainted_too(
    terminals: Terminals, processes: Processes, loop: ManualLoop
) -> None:
    """It was given the size that it had, for which the kernel sends no signal."""
    process, slave = processes.on_terminal(size=(80, 1))
    terminals.repaint(process)
    assert size(slave) == (80, 2)
    loop.clock.let_pass(SETTLE_SECONDS)
    assert size(slave) == (80, 1)


def test_a_size_that_comes_during_a_repaint_stays(
    terminals: Terminals, processes: Processes, loop: ManualLoop
) -> None:
    process, slave = processes.on_terminal()
    terminals.repaint(process)
    loop.clock.let_pass(SETTLE_SECONDS * 0.9)
    terminals.resize(process, "client", 100, 50)
    assert size(slave) == (100, 50)
    loop.clock.let_pass(SETTLE_SECONDS * 0.9)
    assert loop.clock.waiting == 1, "counted from the last change"
    terminals.repaint(process)
    assert size(slave) == (100, 49)
    loop.clock.let_pass(SETTLE_SECONDS)
    assert size(slave) == (100, 50)


def test_without_a_terminal_there_is_no_size(
    terminals: Terminals, processes: Processes, link: Link, loop: ManualLoop
) -> None:
    on_pipe, _ = processes.on_pipe(1000)
    over, slave = processes.on_terminal(1001)
    over.end(ended())
    unread = processes.make(1002, pty=SIZE)
    for process in (on_pipe, over, unread):
        before = process.size
        terminals.resize(process, "client", 100, 50)
        terminals.repaint(process)
        terminals.restore_size(process)
        assert process.size == before
    assert (link.asked, loop.clock.waiting) == ([], 0)
    assert is_open(slave)


@pytest.mark.parametrize(
    "change", [Terminals.repaint, lambda each, process: each.resize(process, "client", 9, 9)]
)
def test_an_end_during_a_change_is_no_error(
    change: Callable[[Terminals, Process], None],
    terminals: Terminals,
    processes: Processes,
    loop: ManualLoop,
) -> None:
    """The descriptor's number may be another process's by then."""
    process, _ = processes.on_terminal()
    change(terminals, process)
    assert process.input is not None
    number = process.input.fd
    process.end(ended())
    another, slave = processes.on_terminal(1001, (50, 50))
    assert another.input is not None
    assert another.input.fd == number
    loop.clock.let_pass(SETTLE_SECONDS)
    assert size(slave) != SIZE


def test_at_the_server_s_end_the_rest_is_left_to_the_next_one(
    terminals: Terminals, processes: Processes, loop: ManualLoop, link: Any
) -> None:
    process, slave = processes.on_terminal()
    terminals.repaint(process)
    terminals.close()
    loop.clock.let_pass(SETTLE_SECONDS)
    assert size(slave) == SMALLER
    anew: Any = ManualLoop()
    Terminals(anew, link, "latest").restore_size(process)
    assert size(slave) == SIZE
