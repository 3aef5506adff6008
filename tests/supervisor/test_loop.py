"""The loop: descriptors, timers and signals, whatever their callbacks do."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from mhnos_runtime.supervisor.loop import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


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


def test_what_a_callback_raises_is_told_to_its_owner_and_everything_goes_on() -> None:
    """A descriptor that stays ready is not called for without end."""
    nobodys: list[Exception] = []
    owners: list[Exception] = []
    calls: list[str] = []
    loop = Loop(nobodys.append)
    owned = loop.owned(owners.append)
    pipes = [os.pipe() for _ in range(3)]

    def fail(name: str) -> None:
        calls.append(name)
        raise ZeroDivisionError(name)

    loop.watch(pipes[0][0], lambda: fail("nobody's"))
    owned.watch(pipes[1][0], lambda: fail("owned"))
    owned.watch(pipes[2][0], lambda: fail("flood"))
    owned.floods.set(pipes[2][0], True)
    owned.after(0.01, lambda: fail("timer"))
    loop.after(0.01, lambda: fail("nobody's timer"))

    def last() -> None:
        loop.stop()
        fail("signal")

    loop.on_signal(signal.SIGUSR1, last)
    loop.after(0.02, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    for _reader, writer in pipes:
        os.write(writer, b"x")
    try:
        loop.run()
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        loop.close()
        for pipe in pipes:
            for fd in pipe:
                os.close(fd)
    assert sorted(calls) == ["flood", "nobody's", "nobody's timer", "owned", "signal", "timer"]
    assert sorted(map(str, owners)) == ["flood", "owned", "timer"]
    assert sorted(map(str, nobodys)) == ["nobody's", "nobody's timer", "signal"]
