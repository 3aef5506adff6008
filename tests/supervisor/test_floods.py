"""Floods are served round-robin, after everything else, and are skipped until a key has its answer."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.channel import TYPED
from mhnos_runtime.supervisor.floods import PAUSE_SECONDS, SHARE, Floods
from tests.supervisor.harness import Server

FLOOD = "import os, tty; tty.setraw(1)\nwhile True: os.write(1, b'y' * 65536)\n"
TERMINAL = (80, 24)


class Turning:
    """Stands in for the loop: an epoll, and time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.epoll = select.epoll()
        self._due: list[tuple[float, Callable[[], None]]] = []
        self.floods = Floods(self.epoll, self._after, lambda: self.now)
        self._pipes: list[int] = []

    def _after(self, seconds: float, callback: Callable[[], None]) -> None:
        self._due.append((self.now + seconds, callback))

    def flood(self) -> int:
        """A descriptor that is always readable."""
        reader, writer = os.pipe()
        self._pipes += reader, writer
        os.write(writer, b"x")
        self.epoll.register(reader, select.EPOLLIN)
        self.floods.set(reader, True)
        return reader

    def wait(self, seconds: float) -> None:
        self.now += seconds
        for due in [each for each in self._due if each[0] <= self.now]:
            self._due.remove(due)
            due[1]()

    def paused(self) -> bool:
        """Whether the loop sleeps although a flood is ready."""
        ready = dict(self.epoll.poll(0))
        assert (self.floods.next() is None) == (self.floods.fd not in ready)
        return self.floods.fd not in ready

    def close(self) -> None:
        self.floods.close()
        self.epoll.close()
        for fd in self._pipes:
            os.close(fd)


@pytest.fixture
def turning() -> Iterator[Turning]:
    made = Turning()
    yield made
    made.close()


def test_floods_take_turns(turning: Turning) -> None:
    fds = [turning.flood() for _ in range(3)]
    seen = [turning.floods.next() for _ in range(9)]
    assert seen[:3] == seen[3:6] == seen[6:]
    assert set(seen) == set(fds)


def test_what_is_no_flood_any_more_is_seen_beside_them(turning: Turning) -> None:
    first, second = turning.flood(), turning.flood()
    turning.floods.set(first, False)
    turning.floods.set(first, False)
    assert {fd for fd, _ in turning.epoll.poll(0)} == {first, turning.floods.fd}
    assert [turning.floods.next() for _ in range(2)] == [second, second]
    turning.floods.set(first, True)
    turning.floods.set(first, True)
    assert {fd for fd, _ in turning.epoll.poll(0)} == {turning.floods.fd}


def test_where_there_is_none_there_is_no_turn(turning: Turning) -> None:
    assert turning.floods.next() is None
    assert turning.epoll.poll(0) == []


def test_a_pause_ends_with_the_answer(turning: Turning) -> None:
    turning.flood()
    assert not turning.paused()
    turning.floods.pause(1)
    assert turning.paused()
    turning.floods.answered(2)
    assert turning.paused()
    turning.floods.answered(1)
    assert not turning.paused()
    turning.floods.answered(1)
    assert not turning.paused()


def test_a_pause_without_an_answer_ends_too(turning: Turning) -> None:
    turning.flood()
    turning.floods.pause(1)
    turning.wait(PAUSE_SECONDS * 0.9)
    assert turning.paused()
    turning.wait(PAUSE_SECONDS * 0.2)
    assert not turning.paused()
    turning.floods.answered(1)
    assert not turning.paused()


def test_a_pause_waits_for_the_answers_to_all_keys_and_no_longer_for_that(turning: Turning) -> None:
    turning.flood()
    turning.floods.pause(1)
    turning.wait(PAUSE_SECONDS / 2)
    turning.floods.pause(2)
    turning.floods.answered(2)
    assert turning.paused()
    turning.floods.pause(2)
    turning.wait(PAUSE_SECONDS / 2)
    assert not turning.paused()


def test_the_end_of_one_pause_is_not_that_of_the_next(turning: Turning) -> None:
    turning.flood()
    turning.floods.pause(1)
    turning.wait(PAUSE_SECONDS * 0.1)
    turning.floods.answered(1)
    turning.wait(PAUSE_SECONDS * 0.5)
    turning.floods.pause(1)
    turning.wait(PAUSE_SECONDS * 0.5)
    assert turning.paused()
    turning.wait(PAUSE_SECONDS * 0.5)
    assert not turning.paused()


@given(st.lists(st.tuples(st.integers(1, 3), st.booleans(), st.floats(0, 2 * PAUSE_SECONDS)), max_size=60))
def test_whatever_is_typed_floods_have_their_share(steps: list[tuple[int, bool, float]]) -> None:
    """Many who type, or one who pours data into a terminal that never answers, must not stop the others."""
    turning = Turning()
    turning.flood()
    paused, longest, begin = 0.0, 0.0, turning.now
    for pid, answers, seconds in steps:
        (turning.floods.answered if answers else turning.floods.pause)(pid)
        for _ in range(8):
            longest = longest + seconds / 8 if turning.paused() else 0.0
            paused += seconds / 8 if turning.paused() else 0.0
            turning.wait(seconds / 8)
            assert longest <= PAUSE_SECONDS + seconds / 8 + 1e-6
    most = (turning.now - begin) / (1 + SHARE) + PAUSE_SECONDS
    # Time passes here in steps, of which the last one of a pause may be a quarter of PAUSE_SECONDS too long.
    assert paused <= most * 1.25 + 1e-6
    turning.close()


# What is captured


# With a supervisor


def test_floods_go_on_beside_one_who_types_without_an_answer(server: Server) -> None:
    """And the bytes of a flood that is typed into are all there."""
    flood = server.python(FLOOD, pty=TERMINAL)
    silent = server.sh("stty -echo raw; exec cat >/dev/null", pty=TERMINAL)
    target = 0

    def typing() -> bool:
        for each in (silent, flood):
            server.channel.notify(TYPED, each.pid)
        return flood.log.head >= target

    for _ in range(3):
        target = flood.log.head + (1 << 20)
        server.until(typing, "another MiB of the flood")
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
