"""How long processes run and are kept, with a clock that the test moves."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import pytest

from mhnos_runtime.errors import Refused
from mhnos_runtime.process.state import State
from mhnos_runtime.process.table import Process, ProcessTable
from mhnos_runtime.server.processes import lifetimes as module
from mhnos_runtime.server.processes.lifetimes import RETURN_MS, Lifetimes, Vanished
from tests.server.processes.scene import Link, ManualLoop, Processes, ended, life_log, pids, turns

RETAIN_COUNT = 2
RETAIN_MS = 60_000
LINGER_MS = 5_000
IDLE = ("kill", 1000, signal.SIGTERM, "idle", True)


class Lives:
    """A table whose processes come and go as the test says."""

    def __init__(self, processes: Processes, loop: Any, link: Any) -> None:
        self._processes = processes
        self.loop: ManualLoop = loop
        self.link: Link = link
        self.told: list[tuple[str, int, int]] = []
        self.table = ProcessTable(100, RETAIN_COUNT, RETAIN_MS)
        self.lifetimes = Lifetimes(loop, self.table, link, self._tell, life_log())

    def let_pass(self, ms: int) -> None:
        self.loop.clock.let_pass(ms / 1000)

    def _tell(self, what: str, process: Process, time_ms: int) -> None:
        self.told.append((what, process.pid, time_ms))

    def come(self, pid: int = 1000, new: bool = True, **known: Any) -> Process:
        process = self._processes.make(pid, **known)
        self.table.add(process)
        self.lifetimes.begin(process, new)
        return process

    def end(self, process: Process) -> None:
        self.lifetimes.end(process, ended(round(self.loop.clock.now * 1000)))

    def watch(self, process: Process, viewer: str = "viewer") -> list[str]:
        """What the viewer was told."""
        told: list[str] = []
        self.lifetimes.enter(process, viewer, lambda: told.append(viewer))
        return told

    @property
    def kept(self) -> list[int]:
        return pids(list(self.table))


@pytest.fixture
async def lives(processes: Processes, loop: ManualLoop, link: Link, monkeypatch: pytest.MonkeyPatch) -> Lives:
    monkeypatch.setattr(module, "_now_ms", lambda: round(loop.clock.now * 1000))
    return Lives(processes, loop, link)


# Signals and ends


async def test_a_signal_that_ends_is_followed_by_others_and_one_that_does_not_is_not(lives: Lives) -> None:
    signalled, ending = lives.come(1000), lives.come(1001)
    lives.lifetimes.kill(signalled, signal.SIGUSR1, escalate=False)
    lives.lifetimes.kill(ending, signal.SIGTERM, escalate=True)
    assert (signalled.state, ending.state) == (State.RUNNING, State.ENDING)
    assert lives.link.asked == [
        ("kill", 1000, signal.SIGUSR1, "killed", False),
        ("kill", 1001, signal.SIGTERM, "killed", True),
    ]


async def test_an_end_is_told_to_all_who_wait_for_it(lives: Lives) -> None:
    process = lives.come()
    told = lives.watch(process)
    waiting = [asyncio.create_task(lives.lifetimes.ended(process)) for _ in range(3)]
    await turns()
    waiting[0].cancel()
    await turns()
    assert [task.done() for task in waiting] == [True, False, False]
    lives.end(process)
    await asyncio.gather(*waiting[1:])
    assert (process.state, told) == (State.EXITED, ["viewer"])
    await lives.lifetimes.ended(process)


async def test_one_that_had_ended_before_is_waited_for_by_nobody(lives: Lives) -> None:
    process = lives.come(ended_as=ended())
    waiting = lives.lifetimes.ended(process)
    with pytest.raises(StopIteration):  # in its first turn
        waiting.send(None)


async def test_who_signals_one_that_has_ended_is_not_remembered(lives: Lives) -> None:
    """Nothing would ever forget it: the end, which does, has come."""
    process = lives.come(ended_as=ended())
    lives.lifetimes.kill(process, signal.SIGKILL, escalate=True, by="somebody")
    assert lives.lifetimes._enders == {}


# Linger


async def test_a_process_is_ended_when_nobody_has_watched_it_for_so_long(lives: Lives) -> None:
    process = lives.come(linger_ms=LINGER_MS)
    lives.watch(process, "a")
    lives.watch(process, "b")
    lives.lifetimes.leave(process, "a")
    lives.let_pass(LINGER_MS * 2)
    assert lives.link.asked == [], "somebody watches"
    lives.lifetimes.leave(process, "b")
    lives.let_pass(LINGER_MS - 1)
    assert lives.link.asked == []
    lives.let_pass(2)
    assert lives.link.asked == [IDLE]
    assert process.state is State.ENDING


async def test_a_viewer_that_comes_in_time_keeps_it(lives: Lives) -> None:
    process = lives.come(linger_ms=LINGER_MS)
    lives.lifetimes.linger(process)
    lives.let_pass(LINGER_MS - 1)
    lives.watch(process)
    lives.let_pass(LINGER_MS)
    lives.lifetimes.linger(process)
    lives.let_pass(LINGER_MS)
    assert lives.link.asked == []
    assert lives.loop.clock.waiting == 0


async def test_a_process_that_lingers_and_is_asked_for_again_begins_anew(lives: Lives) -> None:
    process = lives.come(linger_ms=LINGER_MS)
    for _ in range(3):
        lives.lifetimes.linger(process)
        lives.let_pass(LINGER_MS - 1)
    assert (lives.link.asked, lives.loop.clock.waiting) == ([], 1)
    lives.let_pass(2)
    assert lives.link.asked == [IDLE]


async def test_without_a_time_it_stays(lives: Lives) -> None:
    lives.lifetimes.linger(lives.come())
    assert lives.loop.clock.waiting == 0


async def test_an_end_takes_the_timer_with_it(lives: Lives) -> None:
    """Its timer kept each process in memory for the time that it might have lingered, days at most."""
    process = lives.come(linger_ms=1_000_000_000)
    lives.lifetimes.linger(process)
    lives.end(process)
    assert lives.loop.clock.waiting == 1, "the one for its expiry"
    lives.let_pass(RETAIN_MS + 10)
    assert (lives.kept, lives.loop.clock.waiting) == ([], 0)


async def test_one_that_has_ended_does_not_linger(lives: Lives) -> None:
    process = lives.come(linger_ms=LINGER_MS)
    lives.watch(process)
    lives.end(process)
    lives.lifetimes.leave(process, "viewer")
    lives.lifetimes.linger(process)
    lives.let_pass(LINGER_MS)
    assert lives.link.of("kill") == []


# Expiry


def gone(lives: Lives, process: Process) -> bool:
    """Whether it was removed whole: from the table, from the supervisor, and from memory."""
    forgotten = ("forget", process.pid) in lives.link.asked
    assert forgotten == (process.pid not in lives.kept)
    if forgotten:
        with pytest.raises(ValueError, match="released"):
            _ = process.log.head
    return forgotten


async def test_ended_processes_expire_by_age(lives: Lives) -> None:
    first, second = lives.come(1000), lives.come(1001)
    for process in (first, second):
        lives.lifetimes.linger(process)
        lives.end(process)
        lives.let_pass(1000)
    lives.let_pass(RETAIN_MS - 2000)
    assert not gone(lives, first)
    lives.let_pass(10)
    assert gone(lives, first)
    assert not gone(lives, second)
    lives.let_pass(1000)
    assert gone(lives, second)
    assert lives.loop.clock.waiting == 0


async def test_ended_processes_expire_by_number_the_oldest_first(lives: Lives) -> None:
    made = [lives.come(pid) for pid in range(1000, 1005)]
    for process in made:
        lives.lifetimes.linger(process)
        lives.let_pass(1)
        lives.end(process)
    assert lives.kept == [1003, 1004]
    assert [gone(lives, process) for process in made] == [True, True, True, False, False]


@pytest.mark.parametrize("by_age", [True, False])
async def test_nobody_loses_what_they_read(lives: Lives, by_age: bool) -> None:
    process = lives.come()
    lives.watch(process, "a")
    lives.watch(process, "b")
    lives.end(process)
    if by_age:
        lives.let_pass(RETAIN_MS * 2)
    else:
        for pid in range(2000, 2000 + RETAIN_COUNT):
            other = lives.come(pid)
            lives.lifetimes.linger(other)
            lives.let_pass(1)
            lives.end(other)
    for viewer in ("a", "b"):
        assert not gone(lives, process)
        assert process.log.head == 0, "it can be read"
        lives.lifetimes.leave(process, viewer)
    assert gone(lives, process)


async def test_to_stop_twice_expires_nothing_twice(lives: Lives) -> None:
    process = lives.come()
    lives.watch(process)
    lives.end(process)
    lives.let_pass(RETAIN_MS)
    for _ in range(2):
        lives.lifetimes.leave(process, "viewer")
    assert lives.link.of("forget") == [("forget", 1000)]


@pytest.mark.parametrize("answered", [Lives.watch, lambda lives, process: lives.lifetimes.linger(process)])
async def test_a_process_is_kept_until_its_start_is_answered(
    lives: Lives, answered: Callable[[Lives, Process], object]
) -> None:
    """Where nothing is kept (retain_count 0), a client was told that there is no process of the pid that it
    had just started, if that ended before the answer was on its way."""
    lives.table._retain_count = 0
    process = lives.come(linger_ms=LINGER_MS)
    lives.end(process)
    lives.let_pass(RETAIN_MS)
    assert not gone(lives, process)
    assert (process.viewers, lives.loop.clock.waiting) == ({}, 0), "nobody is counted, and no timer turns"
    answered(lives, process)
    lives.lifetimes.leave(process, "viewer")
    assert gone(lives, process)


async def test_a_clock_that_is_behind_makes_no_loop_of_timers(lives: Lives) -> None:
    process = lives.come()
    lives.lifetimes.linger(process)
    lives.end(process)
    for _ in range(3):
        lives.lifetimes.expire()
    assert lives.loop.clock.waiting == 1


async def test_at_the_server_s_end_no_timer_is_left(lives: Lives) -> None:
    lives.lifetimes.close()
    lingering, over = lives.come(1000, linger_ms=LINGER_MS), lives.come(1001)
    lives.lifetimes.linger(lingering)
    lives.lifetimes.linger(over)
    lives.end(over)
    assert lives.loop.clock.waiting == 2
    lives.lifetimes.close()
    assert lives.loop.clock.waiting == 0
    lives.let_pass(RETAIN_MS * 2)
    assert lives.link.asked == []
    assert lives.kept == [1000, 1001]


# Removal


async def test_an_ended_process_is_removed_at_once_and_a_running_one_is_not(lives: Lives) -> None:
    process = lives.come()
    with pytest.raises(Refused, match="still running") as refused:
        lives.lifetimes.remove(process)
    assert refused.value.code == "still-running"
    lives.lifetimes.linger(process)
    lives.end(process)
    lives.lifetimes.remove(process)
    assert gone(lives, process)
    assert [what for what, _pid, _time in lives.told] == ["started", "ended", "removed"]


async def test_who_reads_a_removed_process_goes_on(lives: Lives) -> None:
    process = lives.come()
    for viewer in ("a", "b"):
        lives.watch(process, viewer)
    lives.end(process)
    lives.lifetimes.remove(process)
    assert (lives.kept, lives.link.of("forget")) == ([], [("forget", 1000)])
    lives.lifetimes.leave(process, "a")
    assert process.log.head == 0, "it can be read"
    lives.lifetimes.leave(process, "b")
    assert gone(lives, process)


async def test_one_may_be_removed_before_its_start_is_answered(lives: Lives) -> None:
    """By another client, which sees it in a list."""
    process = lives.come()
    lives.end(process)
    lives.lifetimes.remove(process)
    assert gone(lives, process)
    lives.lifetimes.linger(process)
    assert lives.lifetimes._unanswered == set()


# Records that go at the end


async def test_where_nobody_is_waited_for_the_record_goes_with_the_end(lives: Lives) -> None:
    process = lives.come(remove=True)
    lives.lifetimes.linger(process)
    lives.end(process)
    assert gone(lives, process)
    assert [what for what, _pid, _time in lives.told] == ["started", "ended", "removed"]


async def test_it_waits_for_those_who_watch(lives: Lives) -> None:
    process = lives.come(remove=True)
    lives.watch(process)
    lives.end(process)
    lives.let_pass(RETURN_MS // 2)
    assert not gone(lives, process)
    lives.lifetimes.leave(process, "viewer")
    assert gone(lives, process)


async def test_it_waits_for_a_client_until_that_says_goodbye_or_for_a_minute(lives: Lives) -> None:
    left, vanished = lives.come(1000, remove=True), lives.come(1001, remove=True)
    for process in (left, vanished):
        lives.lifetimes.linger(process)
        lives.lifetimes.wait_for(process, "client")
        lives.end(process)
    lives.lifetimes.has_vanished(vanished, "client")
    lives.lifetimes.has_got_all(left, "client")
    lives.lifetimes.has_got_all(left, "client")
    assert gone(lives, left)
    lives.let_pass(RETURN_MS - 100)
    assert not gone(lives, vanished)
    lives.let_pass(200)
    assert gone(lives, vanished)


async def test_a_client_that_comes_back_stands_for_one_that_vanished(lives: Lives) -> None:
    process = lives.come(remove=True)
    lives.lifetimes.linger(process)
    for client in ("a", "b"):
        lives.lifetimes.wait_for(process, client)
    for client in ("a", "b"):
        lives.lifetimes.has_vanished(process, client)
    lives.lifetimes.has_vanished(process, "nobody")
    lives.end(process)
    for client in ("c", "d"):
        assert not gone(lives, process)
        lives.lifetimes.wait_for(process, client)
        lives.lifetimes.wait_for(process, client)
        lives.lifetimes.has_got_all(process, client)
    assert gone(lives, process)


async def test_clients_that_vanish_again_and_again_are_not_remembered(lives: Lives) -> None:
    process = lives.come(remove=True)
    for number in range(10):
        lives.lifetimes.wait_for(process, number)
        lives.let_pass(RETURN_MS)
    assert len(process.awaited) == 1


async def test_other_records_wait_for_nobody(lives: Lives) -> None:
    process = lives.come()
    lives.lifetimes.wait_for(process, "client")
    lives.lifetimes.has_vanished(process, "client")
    assert process.awaited == {}


async def test_of_an_earlier_server_somebody_may_come_back(lives: Lives) -> None:
    process = lives.come(new=False, remove=True, ended_as=ended())
    lives.lifetimes.expire()
    assert not gone(lives, process)
    assert [isinstance(each, Vanished) for each in process.awaited] == [True]
    assert lives.told == [], "it has not started now"
    lives.let_pass(RETURN_MS + 20)
    assert gone(lives, process)
