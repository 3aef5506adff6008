"""Backpressure, rule by rule: whom the writer of a log waits for, and for how long."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mhnos_runtime.output import NO_HOLD, Hold, Holds
from mhnos_runtime.output.holds import RETURN_BYTES
from mhnos_runtime.output.layout import BURST_BYTES
from tests.output.clock import Clock
from tests.output.model import make

STALL = 10.0


class Scene:
    """A log that keeps one burst, its holds, and a clock. told: how often the writer was notified."""

    def __init__(self, folder: Path) -> None:
        self.writer, self.reader = make(folder / "log", 0)
        self.clock = Clock()
        self.holds = self.serve()
        self.told = 0

    def serve(self) -> Holds:
        """What a server begins with when it finds the log."""
        return Holds(self.reader, STALL, self.clock.later, self._notify)

    def _notify(self) -> None:
        self.told += 1

    def write(self, count: int = BURST_BYTES) -> None:
        self.writer.append(b"x" * count, 0, 1)

    def block(self) -> None:
        """Fill the log up to the hold, as a flood does."""
        while room := self.writer.room():
            self.write(room)
        assert self.writer.block()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.holds.close()
    made.writer.close()
    made.reader.close()


# The lowest hold


def test_where_nobody_reads_the_writer_waits_for_nobody(scene: Scene) -> None:
    scene.write()
    scene.write()
    scene.holds.look()
    assert scene.writer.hold == NO_HOLD


def test_the_slowest_reader_is_waited_for(scene: Scene) -> None:
    scene.write()
    slow, fast = scene.holds.enter(100), scene.holds.enter(900)
    assert scene.writer.hold == 100
    slow.move(800)
    assert scene.writer.hold == 800
    slow.move(1000)
    assert scene.writer.hold == 900
    fast.leave()
    assert scene.writer.hold == 1000
    slow.leave()
    assert scene.writer.hold == NO_HOLD


def test_a_hold_never_moves_back(scene: Scene) -> None:
    """A client may acknowledge less than before: what it has given up may be overwritten by now."""
    scene.write()
    hold = scene.holds.enter(0)
    hold.move(500)
    hold.move(200)
    assert scene.writer.hold == hold.offset == 500


def test_the_writer_is_notified_only_while_it_waits_and_when_the_lowest_hold_moved(scene: Scene) -> None:
    slow, fast = scene.holds.enter(0), scene.holds.enter(0)
    scene.block()
    fast.move(700)
    slow.move(0)
    assert scene.told == 0
    slow.move(10)
    assert scene.told == 1
    scene.writer.unblock()
    slow.move(20)
    assert scene.told == 1


def test_a_reader_whose_bytes_are_gone_is_not_waited_for(scene: Scene) -> None:
    scene.write()
    scene.write(500)
    late = scene.holds.enter(100)
    assert scene.writer.hold == NO_HOLD
    late.skip(500)
    assert scene.writer.hold == 500  # at once: it has kept nobody waiting


# Leaving


def test_a_goodbye_lets_go_at_once(scene: Scene) -> None:
    hold = scene.holds.enter(0)
    scene.block()
    hold.leave()
    assert (scene.writer.hold, scene.told, scene.clock.waiting) == (NO_HOLD, 1, 0)


def test_the_hold_of_a_reader_that_vanished_is_kept_for_the_stall_time_and_lapses(scene: Scene) -> None:
    hold = scene.holds.enter(0)
    scene.block()
    hold.leave(vanished=True)
    scene.clock.let_pass(STALL - 0.001)
    assert (scene.writer.hold, scene.told) == (0, 0)
    scene.clock.let_pass(0.001)
    assert (scene.writer.hold, scene.told) == (NO_HOLD, 1)


def test_a_reader_leaves_once(scene: Scene) -> None:
    """And a late acknowledgement of one that has left changes nothing."""
    hold, other = scene.holds.enter(0), scene.holds.enter(300)
    hold.leave()
    hold.leave(vanished=True)
    hold.move(100)
    assert (scene.writer.hold, scene.clock.waiting) == (300, 0)
    other.leave()
    assert scene.writer.hold == NO_HOLD


def test_a_newcomer_takes_over_the_nearest_hold_that_is_kept(scene: Scene) -> None:
    scene.write()
    first, second = scene.holds.enter(0), scene.holds.enter(0)
    first.move(100)
    second.move(500)
    first.leave(vanished=True)
    second.leave(vanished=True)
    newcomer = scene.holds.enter(450)
    newcomer.move(900)
    assert scene.writer.hold == 100
    scene.clock.let_pass(STALL)
    assert scene.writer.hold == 900


def test_a_newcomer_takes_over_one_hold_for_good(scene: Scene) -> None:
    """Its time does not go on: a client that came back in the last second lost what it was reading."""
    scene.write()
    scene.holds.enter(100).leave(vanished=True)
    scene.clock.let_pass(STALL - 1)
    newcomer = scene.holds.enter(80)  # behind it: what was sent got lost on the way
    assert (scene.writer.hold, scene.clock.waiting) == (80, 0)
    scene.clock.let_pass(2)
    assert scene.writer.hold == 80
    newcomer.leave()
    assert scene.writer.hold == NO_HOLD


def test_nothing_is_kept_for_a_reader_that_is_back_already(scene: Scene) -> None:
    """A process waited for the old hold for the whole stall time, though its client was reading again: the
    end of the old connection was noticed only after the new one had come."""
    scene.write()
    old = scene.holds.enter(200)
    new = scene.holds.enter(150)
    new.move(600)
    old.leave(vanished=True)
    assert (scene.writer.hold, scene.clock.waiting) == (600, 0)


def test_a_reader_that_has_moved_since_was_another_client(scene: Scene) -> None:
    scene.write()
    reading = scene.holds.enter(200)
    scene.holds.enter(200).move(600)
    reading.move(300)
    reading.leave(vanished=True)
    assert scene.writer.hold == 300


def test_a_hold_is_kept_if_the_one_that_came_to_it_has_left(scene: Scene) -> None:
    scene.write()
    old = scene.holds.enter(200)
    scene.holds.enter(200).leave()
    old.leave(vanished=True)
    assert scene.writer.hold == 200


# Servers come and go


def test_what_the_log_is_held_at_is_kept_for_whoever_asked_for_the_process(scene: Scene) -> None:
    """The log of a process that is started for a watcher is held from its first byte."""
    scene.writer.hold_all()
    holds = scene.serve()
    scene.block()
    holds.enter(0).move(10)
    assert (scene.writer.hold, scene.told, scene.clock.waiting) == (10, 1, 0)


def test_the_hold_outlives_the_server_for_the_stall_time(scene: Scene) -> None:
    scene.holds.enter(100)
    scene.block()
    scene.holds.close()
    scene.serve()
    assert scene.writer.hold == 100
    scene.clock.let_pass(STALL)
    assert (scene.writer.hold, scene.told) == (NO_HOLD, 1)


def test_nothing_is_called_after_the_end(scene: Scene) -> None:
    """A lapse would touch a log that is closed."""
    scene.holds.enter(0).leave(vanished=True)
    scene.holds.close()
    assert scene.clock.waiting == 0
    assert scene.writer.hold == 0


# Passed by


def passed_by(scene: Scene) -> tuple[Hold, Hold]:
    """The writer has waited in vain for the first of the two, and the server knows it."""
    slow, other = scene.holds.enter(0), scene.holds.enter(40_000)
    scene.block()
    scene.writer.pass_by()
    scene.holds.look()
    return slow, other


def read(scene: Scene, hold: Hold, offset: int) -> None:
    """As a viewer does: first it finds what was overrun."""
    if hold.offset < scene.reader.tail:
        hold.skip(scene.reader.tail)
    hold.move(offset)


def test_the_others_are_waited_for_when_the_slowest_was_passed_by(scene: Scene) -> None:
    passed_by(scene)
    assert (scene.writer.hold, scene.told) == (40_000, 1)


def test_without_an_answer_the_writer_waits_for_nobody_and_then_for_the_others_again(scene: Scene) -> None:
    """A hung server must not hold a process up. A reader that was overrun meanwhile did not stall: it is
    waited for as soon as it knows."""
    slow, other = scene.holds.enter(0), scene.holds.enter(1)
    scene.block()
    scene.writer.pass_by()
    scene.writer.unblock()
    scene.write()
    slow.skip(scene.reader.tail)
    assert scene.writer.hold == NO_HOLD
    other.skip(scene.reader.tail)
    assert (slow.passed_at, other.passed_at) == (scene.reader.tail, None)
    assert scene.writer.hold == other.offset


def test_one_that_was_passed_by_must_read_before_it_is_waited_for_again(scene: Scene) -> None:
    """One that trickled once held a process up for ever: for each stall it lost a single byte."""
    slow, other = passed_by(scene)
    other.move(scene.writer.head)
    slow.skip(1)
    slow.move(5_000)
    assert scene.writer.hold == other.offset
    scene.write(50_000)
    read(scene, slow, scene.reader.tail + 100)  # to be told of what was overrun is not reading
    assert scene.writer.hold == other.offset
    other.move(scene.writer.head)
    scene.write()
    read(scene, slow, scene.reader.tail + RETURN_BYTES - 1)
    assert slow.passed_at is not None
    slow.move(slow.offset + 1)
    assert slow.passed_at is None


def test_one_that_has_read_enough_is_waited_for_though_it_is_behind(scene: Scene) -> None:
    slow, other = passed_by(scene)
    slow.skip(1)
    scene.writer.unblock()
    other.leave()
    slow.move(30_000)
    scene.write(20_000)
    slow.move(1 + RETURN_BYTES)
    assert slow.offset < scene.writer.head
    assert scene.writer.hold == slow.offset


def test_one_that_has_read_all_there_is_is_waited_for_again(scene: Scene) -> None:
    slow, other = passed_by(scene)
    other.leave()
    slow.skip(1)
    slow.move(scene.writer.head)
    assert scene.writer.hold == scene.writer.head


def test_one_that_has_caught_up_behind_a_slower_one_is_waited_for_again(scene: Scene) -> None:
    """Whether it had was asked only when the lowest hold moved: by then there was more to read, and it lost
    that as if it had not read at all."""
    slow, other = passed_by(scene)
    slow.skip(1)
    slow.move(scene.writer.head)
    caught_up = scene.writer.head
    scene.writer.unblock()
    scene.write(10_000)
    other.move(scene.writer.head)
    assert scene.writer.hold == caught_up


def test_one_that_trickles_is_passed_by_though_it_moves_before_the_notice_comes(scene: Scene) -> None:
    """It was found by where it stood, so that one acknowledgement at the right moment gave it another stall
    time for one byte."""
    slow = scene.holds.enter(0)
    scene.block()
    scene.writer.pass_by()
    slow.move(1)
    assert slow.passed_at is not None
    assert scene.writer.hold == NO_HOLD


def test_one_that_enters_where_another_was_passed_by_is_new(scene: Scene) -> None:
    """It was taken for the one that had kept the writer waiting, and was not waited for."""
    slow = scene.holds.enter(0)
    scene.block()
    scene.writer.pass_by()
    new = scene.holds.enter(0)
    assert (slow.passed_at, new.passed_at) == (1, None)
    new.skip(1)
    assert scene.writer.hold == 1


@pytest.mark.parametrize("end", ["lapse", "goodbye"])
def test_another_ones_end_leaves_it_known_who_was_passed_by(scene: Scene, end: str) -> None:
    """The end of another hold sets the lowest one anew, which is what tells who was passed by."""
    slow, other = scene.holds.enter(0), scene.holds.enter(0)
    other.move(50)
    if end == "lapse":
        other.leave(vanished=True)
    scene.block()
    scene.writer.pass_by()
    if end == "lapse":
        scene.clock.let_pass(STALL)
    else:
        other.leave()
    slow.skip(1)
    assert scene.writer.hold == NO_HOLD


def test_a_reader_that_vanishes_after_it_was_passed_by_has_its_time(scene: Scene) -> None:
    """What kept it from reading may have been the network that is gone now."""
    slow, other = passed_by(scene)
    other.leave()
    slow.skip(1)
    slow.move(100)
    assert scene.writer.hold == NO_HOLD
    slow.leave(vanished=True)
    assert scene.writer.hold == 100
