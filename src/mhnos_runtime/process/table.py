"""The processes that a server knows: live ones, and ended ones for as long as they are kept. No event
loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from mhnos_runtime.errors import LimitReached, NotFound
from mhnos_runtime.launch import ExitRecord, ProcessRecord
from mhnos_runtime.output import NO_HOLD, LogReader
from mhnos_runtime.process.input import InputQueue
from mhnos_runtime.process.numbered import NumberedInputs
from mhnos_runtime.process.state import Event, State, after

#: What a viewer that the writer has waited for in vain must read before it is waited for again. One that
#: takes less in the time of a stall would hold the process up for ever, at the price of a byte each time.
RETURN_BYTES = 64 * 1024


@dataclass(eq=False)
class Place:
    """Where one viewer is. offset: what it still needs. vanished: its connection broke without a goodbye, and
    the place is kept for a while. came_at: the place that was nearest when this one came, and its offset.
    passed_at: from where it has to show that it reads, since the writer has waited for it in vain."""

    offset: int
    vanished: bool = False
    came_at: tuple[Place, int] | None = None
    passed_at: int | None = None

    def skip(self, offset: int) -> None:
        """It has been told of a gap that ends here; that is not reading."""
        if self.passed_at is not None:
            self.passed_at = offset

    def is_waited_for(self, log: LogReader, tail: int) -> bool:
        if self.offset < tail:
            if self.offset == log.hold:
                self.passed_at = tail
            return False
        if self.passed_at is not None and self.offset >= min(self.passed_at + RETURN_BYTES, log.head):
            self.passed_at = None
        return self.passed_at is None


@dataclass(eq=False)
class Process:
    """One process.

    meta: what the request said (kind, command, args, name, cwd, linger_ms, sandbox), and what was found out
    since: ready ({state, reason} or None) and ports (as process.ready.Port). places: who reads its
    log, with what to call when there is something to read. typed_at: when the supervisor was last told that
    somebody types (event loop's clock).
    """

    record: ProcessRecord
    log: LogReader
    input: InputQueue | None
    state: State = State.RUNNING
    places: dict[Place, Callable[[], None]] = field(default_factory=dict)
    typed_at: float = 0.0

    def __post_init__(self) -> None:
        self.pid = self.record.pid
        self.meta: dict[str, Any] = self.record.meta
        self.size = self.record.pty
        self.exit: ExitRecord | None = self.record.exit
        self._inputs: NumberedInputs | None = None
        if self.exit is not None:
            self.state = State.EXITED

    def happen(self, event: Event) -> None:
        """Move to the state that follows `event`. Raises NotNow."""
        self.state = after(self.state, event)

    def numbered(self) -> NumberedInputs:
        """The positions of those who number what they type; made when the first one comes."""
        if self._inputs is None:
            self._inputs = NumberedInputs(self.log.inputs())
        return self._inputs

    def end(self, record: ExitRecord) -> None:
        self.happen(Event.ENDED)
        self.exit = record
        if self.input is not None:
            self.input.close()

    @property
    def failure(self) -> str:
        """What an end with an error before it served means for its kind, else ""."""
        early = self.exit is not None and self.exit.code and self.exit.reason == "exit"
        ready = self.meta.get("ready")
        served = ready is None or ready["state"] == "ready"
        return self.meta.get("early_exit", "") if early and not served else ""

    @property
    def viewers(self) -> int:
        return sum(not place.vanished for place in self.places)

    def wake(self) -> None:
        """Tell everyone who reads the log that there is something new: output, or the end."""
        for wake in list(self.places.values()):
            wake()
        self.log.forget()

    @property
    def passed_by(self) -> bool:
        """The writer has given up what the slowest place needs; the others have to be held anew."""
        return self.log.hold < self.log.tail

    def hold(self) -> bool:
        """Ask the writer to wait for the slowest place that has not been overtaken or passed by. True when it
        has to be told."""
        tail = self.log.tail
        waited_for = (place.offset for place in self.places if place.is_waited_for(self.log, tail))
        offset = min(waited_for, default=NO_HOLD)
        if offset == self.log.hold:
            return False
        return self.log.set_hold(offset)

    def close(self) -> None:
        if self.input is not None:
            self.input.close()
        if self._inputs is not None:
            self._inputs.close()
        self.log.close()


class ProcessTable:
    """Processes by pid, with the bounds on how many there may be and how long ended ones are kept."""

    def __init__(self, max_processes: int, retain_count: int, retain_ms: int) -> None:
        self._max_processes = max_processes
        self._retain_count = retain_count
        self._retain_ms = retain_ms
        self._processes: dict[int, Process] = {}
        self._starting = 0
        self.total_spawned = 0

    def __iter__(self) -> Iterator[Process]:
        return iter(list(self._processes.values()))

    def get(self, pid: int) -> Process | None:
        return self._processes.get(pid)

    def find(self, pid: int) -> Process:
        """Raises NotFound with the text of protocol 1.0."""
        process = self._processes.get(pid)
        if process is None:
            raise unknown_process(pid)
        return process

    @property
    def active(self) -> int:
        return sum(process.exit is None for process in self._processes.values())

    @property
    def starting(self) -> int:
        """How many are reserved."""
        return self._starting

    def reserve(self) -> None:
        """Count a process that is about to start. Raises LimitReached with the text of protocol 1.0."""
        if self.active + self._starting >= self._max_processes:
            raise LimitReached(
                f"Maximum process limit reached ({self._max_processes})",
                code="too-many-processes",
                hint="end a process, or raise MHNOS_MAX_PROCESSES",
            )
        self._starting += 1

    def release(self) -> None:
        """Undo `reserve`: the process is in the table by now, or will never be."""
        self._starting -= 1

    def add(self, process: Process) -> None:
        self._processes[process.pid] = process

    def expire(self, now_ms: int) -> list[Process]:
        """Remove the ended processes that are too old or too many, and that nobody is reading; return
        them."""
        ended = sorted(
            (p for p in self._processes.values() if p.exit is not None),
            key=lambda p: p.exit.end_time_ms if p.exit else 0,
        )
        excess = len(ended) - self._retain_count
        expired = [
            process
            for number, process in enumerate(ended)
            if not process.viewers
            and process.exit is not None
            and (number < excess or now_ms - process.exit.end_time_ms >= self._retain_ms)
        ]
        for process in expired:
            del self._processes[process.pid]
        return expired

    def next_expiry_ms(self) -> int | None:
        """Epoch time at which `expire` has something to do again; None while nothing has ended."""
        ends = [p.exit.end_time_ms for p in self._processes.values() if p.exit is not None and not p.viewers]
        return min(ends) + self._retain_ms if ends else None


def unknown_process(pid: int) -> NotFound:
    """With the text of protocol 1.0."""
    return NotFound(f"Process {pid} not found", code="unknown-process", hint="list shows those there are")
