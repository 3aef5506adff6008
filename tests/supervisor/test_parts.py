"""Parts of the supervisor without a process: what a machine that has nothing left says, and the loop."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator

import pytest

from mhnos_runtime.errors import LimitReached
from mhnos_runtime.supervisor import child, sources, tree
from mhnos_runtime.supervisor.loop import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def failing(number: int) -> object:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOENT, errno.EIO])
def test_no_terminal_left_is_said(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "openpty", failing(number))
    with pytest.raises(LimitReached, match="no pseudo-terminal") as refused, child.Wiring((80, 24)):
        pass
    assert (refused.value.code, refused.value.retry) == ("no-pty", True)
    assert "pty/max" in refused.value.hint
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("pty", [None, (80, 24)])
@pytest.mark.parametrize("name", ["pipe2", "openpty"])
def test_no_descriptor_left_is_said(
    name: str, pty: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "openpty" and pty is None:
        return
    before = sorted(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, name, failing(errno.EMFILE))
    with pytest.raises(LimitReached, match="Too many open files") as refused, child.Wiring(pty):
        pass
    assert refused.value.code == "start-failed"
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("report", "code"),
    [
        (b"exec:2", "not-found"),
        (b"exec:20", "not-found"),
        (b"exec:13", "not-executable"),
        (b"exec:8", "not-executable"),
        (b"exec:7", "start-failed"),
        (b"limits:22", "start-failed"),
        (b"setup:RuntimeError('x')", "start-failed"),
        (b"", "start-failed"),
        (b"\xff\xfe", "start-failed"),
    ],
)
def test_each_report_of_a_child_has_a_reason(report: bytes, code: str) -> None:
    error = child.why_not(report, "/no/such/program")
    assert error.code == code
    assert error.message.startswith("/no/such/program: ")


def test_signals_have_names() -> None:
    assert [tree.signal_name(number) for number in (1, 9, 34, 35, 64)] == [
        "SIGHUP", "SIGKILL", "SIGRTMIN", "SIGRTMIN+1", "SIGRTMAX",
    ]  # fmt: skip


def test_an_event_is_not_for_who_took_the_number(loop: Loop) -> None:
    """Both pipes have an event in one turn; the first one's callback closes the second, whose number is used
    again at once."""
    pipes = [os.pipe(), os.pipe()]
    ready = dict(pipes)
    called: list[str] = []

    def close_the_other(mine: int, other: int) -> None:
        called.append("first")
        loop.unwatch(mine)
        loop.unwatch(other)
        os.close(other)
        again, writer = os.pipe()
        assert again == other
        ready[again] = writer
        loop.watch(again, lambda: called.append("too early"))
        loop.after(0.01, loop.stop)

    (first, _), (second, _) = pipes
    loop.watch(first, lambda: close_the_other(first, second))
    loop.watch(second, lambda: close_the_other(second, first))
    old = [writer for _, writer in pipes]
    for writer in old:
        os.write(writer, b"x")
    loop.run()
    assert called == ["first"]
    for fd in {first, second, *old, *ready.values()}:
        os.close(fd)


def test_timers_run_in_order_and_not_when_cancelled(loop: Loop) -> None:
    ran: list[int] = []
    loop.after(0.02, loop.stop)
    loop.after(0.01, lambda: ran.append(2))
    loop.after(0.0, lambda: ran.append(1))
    loop.after(0.005, lambda: ran.append(9)).cancel()
    loop.run()
    assert ran == [1, 2]


def test_killing_nobody_is_nothing() -> None:
    tree.kill([])
    tree.send([2**22 + 1], signal.SIGKILL)  # beyond the largest pid there can be


def test_a_flood_waits_for_what_is_not_one_and_takes_turns_with_others() -> None:
    """Eight floods once stood in front of every echo, each with a burst of its own."""
    loop = Loop()
    called: list[int] = []
    pipes = [os.pipe() for _ in range(4)]

    def take(number: int) -> None:
        called.append(number)
        loop.floods.set(pipes[number][0], number != 3)
        if len(called) == 10:
            loop.stop()

    for number, (reader, writer) in enumerate(pipes):
        os.write(writer, b"x")
        loop.watch(reader, lambda number=number: take(number))  # type: ignore[misc]
    loop.run()
    first, later = called[:4], called[4:]
    assert sorted(first) == [0, 1, 2, 3]
    assert later == [3, first[0], 3, first[1], 3, first[2]]
    loop.close()
    for fd in (fd for ends in pipes for fd in ends):
        os.close(fd)


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
