"""Backpressure against a plain model: readers come, read, stall, leave, vanish and return, in any order.

Log and writer are the real ones, driven as the supervisor does it; the model never looks at the holds.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from mhnos_runtime.output import NO_HOLD, Cursor, Hold, Holds, Overrun
from mhnos_runtime.output.holds import RETURN_BYTES
from tests.output.clock import Clock
from tests.output.model import make

STALL = 10.0


@dataclass(eq=False)
class Reader:
    """needs: the first offset that it has not used. kept_until: when its hold lapses, once it has vanished.
    owes_from: from where it has to read before it is waited for again. came_to: the one it may have come back
    for, and what that needed then."""

    needs: int
    kept_until: float | None = None
    owes_from: int | None = None
    came_to: tuple[Reader, int] | None = None


@dataclass
class Model:
    """here and kept: those that read, and those that vanished. passed: those that the writer has passed by,
    of which the server does not know yet."""

    here: list[Reader] = field(default_factory=list)
    kept: list[Reader] = field(default_factory=list)
    passed: list[Reader] = field(default_factory=list)

    def waited_for(self, tail: int) -> list[Reader]:
        return [each for each in self.here + self.kept if each.owes_from is None and each.needs >= tail]

    def hold(self, tail: int) -> int:
        return min((each.needs for each in self.waited_for(tail)), default=NO_HOLD)

    def look(self, tail: int) -> None:
        for each in self.passed:
            each.owes_from = tail
        self.passed.clear()

    def enter(self, reader: Reader) -> None:
        nearest = min(self.kept or self.here, key=lambda each: abs(each.needs - reader.needs), default=None)
        if nearest in self.kept:
            self.kept.remove(nearest)
        elif nearest is not None:
            reader.came_to = nearest, nearest.needs
        self.here.append(reader)

    def move(self, reader: Reader, offset: int, head: int) -> None:
        reader.needs = max(reader.needs, offset)
        if reader.owes_from is not None and (
            reader.needs >= head or reader.needs - reader.owes_from >= RETURN_BYTES
        ):
            reader.owes_from = None

    def vanish(self, reader: Reader, until: float) -> None:
        if any(each.came_to == (reader, reader.needs) for each in self.here):
            return
        reader.owes_from, reader.kept_until = None, until
        self.kept.append(reader)

    def lapse(self, now: float) -> None:
        self.kept = [each for each in self.kept if each.kept_until is not None and each.kept_until > now]


class Backpressure(RuleBasedStateMachine):
    """What is checked after each step is in `settled`."""

    @initialize(watched=st.booleans(), readers=st.integers(0, 3))
    def create(self, watched: bool, readers: int) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.writer, self.log = make(Path(self.directory.name) / "log", 0)
        self.clock = Clock()
        self.model = Model()
        self.holds_by: dict[Reader, tuple[Hold, Cursor]] = {}
        self.told = 0
        self.blocked = False
        if watched:
            self.writer.hold_all()
        self._serve()
        for _ in range(readers):
            self.enter(0)

    def teardown(self) -> None:
        if hasattr(self, "writer"):
            self.holds.close()
            self.writer.close()
            self.log.close()
            self.directory.cleanup()

    def _serve(self) -> None:
        if self.log.hold != NO_HOLD:
            self.model.kept.append(Reader(self.log.hold, self.clock.now + STALL))
        self.holds = Holds(self.log, STALL, self.clock.later, self._tell)

    def _tell(self) -> None:
        self.told += 1

    def _one(self, which: int) -> Reader:
        return self.model.here[which % len(self.model.here)]

    def settled(self, before: int) -> None:
        """After the server has acted, on a log that was held at `before`."""
        self.model.look(self.log.tail)
        assert self.log.hold == self.model.hold(self.log.tail)
        assert all(self.log.hold <= each.needs for each in self.model.waited_for(self.log.tail))
        assert (self.told > 0) == (self.blocked and self.log.hold != before)
        if self.blocked and self.writer.room():
            assert self.told, "the writer sleeps though there is room"
            self.blocked = False
            self.writer.unblock()
        self.told = 0

    # The writer, as the supervisor drives it

    @precondition(lambda self: not self.blocked)
    @rule(count=st.sampled_from([1, 300, 5_000, 30_000, 65_536]), stream=st.integers(0, 1))
    def write(self, count: int, stream: int) -> None:
        """It overwrites nothing of a reader that is waited for, and stops only for one. While the server does
        not say who that is, after one was passed by, the writer waits for nobody."""
        waited_for = [] if self.model.passed else self.model.waited_for(self.log.tail)
        room = self.writer.room()
        if not room:
            assert waited_for
            self.blocked = self.writer.block()
            assert self.blocked
            return
        self.writer.append(b"x" * min(count, room), stream, 1)
        assert all(each.needs >= self.log.tail for each in waited_for)

    @precondition(lambda self: bool(self.model.waited_for(self.log.tail)) and not self.model.passed)
    @rule(stall=st.booleans())
    def flood(self, stall: bool) -> None:
        """Write until it has to wait, and perhaps until the stall time is over."""
        while not self.blocked:
            self.write(65_536, 0)
        if stall:
            self.pass_by()

    def pass_by(self) -> None:
        self.model.passed = [e for e in self.model.waited_for(self.log.tail) if e.needs == self.log.hold]
        assert self.model.passed, "the writer has waited for nobody"
        self.writer.pass_by()

    @precondition(lambda self: bool(self.model.passed))
    @rule()
    def go_on_without_an_answer(self) -> None:
        self.blocked = False
        self.writer.unblock()

    @precondition(lambda self: bool(self.model.passed))
    @rule()
    def look(self) -> None:
        before = self.log.hold
        self.holds.look()
        self.settled(before)

    # Readers

    @precondition(lambda self: len(self.model.here) < 5)
    @rule(back=st.sampled_from([0, 1, 500, 40_000, 65_536, 200_000]))
    def enter(self, back: int) -> None:
        before, start = self.log.hold, max(0, self.log.head - back)
        self.model.look(self.log.tail)
        reader = Reader(start)
        self.model.enter(reader)
        self.holds_by[reader] = self.holds.enter(start), Cursor(self.log, start)
        self.settled(before)

    @precondition(lambda self: bool(self.model.here))
    @rule(
        which=st.integers(0, 9),
        limit=st.sampled_from([1, 700, 20_000, 65_536]),
        used=st.none() | st.integers(-100, 20_000),
    )
    def read(self, which: int, limit: int, used: int | None) -> None:
        """As a viewer does. used: what its client acknowledges beyond what it has: late, a part, or less than
        before; None for a client that does not acknowledge."""
        before, reader = self.log.hold, self._one(which)
        hold, cursor = self.holds_by[reader]
        self.model.look(self.log.tail)
        item = cursor.take(limit)
        if isinstance(item, Overrun):
            if reader.owes_from is not None:
                reader.owes_from = item.to
            self.model.move(reader, item.to, self.log.head)
            hold.skip(item.to)
        else:
            offset = cursor.offset if used is None else max(0, min(hold.offset + used, cursor.offset))
            self.model.move(reader, offset, self.log.head)
            hold.move(offset)
        self.settled(before)

    @precondition(lambda self: bool(self.model.here))
    @rule(which=st.integers(0, 9), vanished=st.booleans())
    def leave(self, which: int, vanished: bool) -> None:
        before, reader = self.log.hold, self._one(which)
        self.model.look(self.log.tail)
        self.model.here.remove(reader)
        if vanished:
            self.model.vanish(reader, self.clock.now + STALL)
        hold, _cursor = self.holds_by.pop(reader)
        hold.leave(vanished)
        self.settled(before)

    @rule(seconds=st.sampled_from([0.5, 1, 5, 9.5, 10]))
    def let_time_pass(self, seconds: float) -> None:
        """Exactly those whose time is over lapse."""
        before, kept = self.log.hold, len(self.model.kept)
        self.model.lapse(self.clock.now + seconds)
        self.clock.let_pass(seconds)
        assert self.clock.waiting == len(self.model.kept)
        if len(self.model.kept) < kept:
            self.settled(before)

    @rule()
    def replace_the_server(self) -> None:
        """All readers are gone, and what the log was held at is kept for them."""
        self.holds.close()
        assert self.clock.waiting == 0
        at = self.log.hold
        self.model = Model(passed=[])
        self.holds_by.clear()
        self._serve()
        if at < self.log.tail:
            self.model.passed = list(self.model.kept)


TestBackpressure = Backpressure.TestCase
TestBackpressure.settings = settings(
    max_examples=200, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
