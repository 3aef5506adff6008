"""The processes that a server knows: live ones, and ended ones for as long as they are kept. No event
loop."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field

from mhnos_runtime.errors import LimitReached, NotFound, Refused
from mhnos_runtime.launch import ExitRecord, ProcessRecord
from mhnos_runtime.output import Holds, LogReader
from mhnos_runtime.process.client_input import NumberedInputs
from mhnos_runtime.process.facts import UNKNOWN, ProcessFacts
from mhnos_runtime.process.input import InputQueue
from mhnos_runtime.process.state import Event, State, after


@dataclass(eq=False)
class Process:
    """One process.

    holds: backpressure, for whom it waits. facts: those of the record, decoded. viewers: who watches it, with
    what to call when there is something to read. typed_at: when the supervisor was last told that somebody
    types (event loop's clock). awaited: clients that may not have got all that they were sent, and until when
    (epoch ms) a record that goes at the end stays for them. forgotten: it has left the table.
    """

    record: ProcessRecord
    log: LogReader
    input: InputQueue | None
    holds: Holds
    facts: ProcessFacts = UNKNOWN
    state: State = State.RUNNING
    viewers: dict[object, Callable[[], None]] = field(default_factory=dict)
    typed_at: float = 0.0
    awaited: dict[object, int] = field(default_factory=dict)
    forgotten: bool = False

    def __post_init__(self) -> None:
        self.pid = self.record.pid
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
        served = self.facts.ready is None or self.facts.ready.state == "ready"
        return self.facts.early_exit if early and not served else ""

    def wake(self) -> None:
        """Tell everyone who reads the log that there is something new: output, or the end."""
        for wake in list(self.viewers.values()):
            wake()
        self.log.forget()

    def close(self) -> None:
        if self.input is not None:
            self.input.close()
        if self._inputs is not None:
            self._inputs.close()
        self.holds.close()
        self.log.close()


def _everything(_pid: int) -> bool:
    return True


class ProcessTable:
    """Processes by pid and by name, with the bounds on how many there may be and how long ended ones are
    kept."""

    def __init__(self, max_processes: int, retain_count: int, retain_ms: int, spawned: int = 0) -> None:
        """spawned: how many were started before; those that are added as new count too."""
        self._max_processes = max_processes
        self._retain_count = retain_count
        self._retain_ms = retain_ms
        self._processes: dict[int, Process] = {}
        self._starting = 0
        self._starting_names: set[str] = set()
        self.total_spawned = spawned

    def __iter__(self) -> Iterator[Process]:
        return iter(list(self._processes.values()))

    def get(self, handle: int | str, sees: Callable[[int], bool] = _everything) -> Process | None:
        """The process that a pid or a name means to somebody who `sees` these pids, and knows of no other.
        A name means the process that runs, else the one that ended last."""
        if isinstance(handle, str):
            named = (p for p in self._processes.values() if p.facts.name == handle and sees(p.pid))
            return max(named, key=_ended_last, default=None)
        return self._processes.get(handle) if sees(handle) else None

    def find(self, handle: int | str, sees: Callable[[int], bool] = _everything) -> Process:
        """As `get`. Raises NotFound with the text of protocol 1.0."""
        process = self.get(handle, sees)
        if process is None:
            raise unknown_process(handle)
        return process

    def check_name(self, name: str, renamed: Process | None = None) -> None:
        """Whether a process that starts, or is renamed, may have this name. Raises Refused (name-taken).

        Ended processes do not keep theirs. One that is renamed has to find a free name all the same: nothing
        would find it by one that a running process has.
        """
        owner = self.get(name)
        if owner is not None and owner.exit is None and owner is not renamed:
            raise _taken(name, f"process {owner.pid} has it; end or rename that one, or choose another name")
        if name in self._starting_names:
            raise _taken(name, "a process that starts at this moment has it; choose another name")

    @property
    def active(self) -> int:
        return sum(process.exit is None for process in self._processes.values())

    @property
    def starting(self) -> int:
        """How many are reserved."""
        return self._starting

    def reserve(self, name: str | None = None) -> None:
        """Count a process that is about to start, and keep its name for it. Raises LimitReached with the text
        of protocol 1.0, and Refused (name-taken)."""
        if name is not None:
            self.check_name(name)
        if self.active + self._starting >= self._max_processes:
            raise LimitReached(
                f"Maximum process limit reached ({self._max_processes})",
                code="too-many-processes",
                hint="end a process, or raise MHNOS_MAX_PROCESSES",
            )
        self._starting += 1
        if name is not None:
            self._starting_names.add(name)

    def release(self, name: str | None = None) -> None:
        """Undo `reserve`: the process is in the table by now, or will never be."""
        self._starting -= 1
        self._starting_names.discard(name or "")

    def add(self, process: Process, new: bool = False) -> None:
        self._processes[process.pid] = process
        self.total_spawned += new

    def drop(self, process: Process) -> None:
        """Nobody finds it any more."""
        del self._processes[process.pid]
        process.forgotten = True

    def expired(self, now_ms: int, kept: Container[int] = ()) -> list[Process]:
        """The ended processes that are too old or too many, and that nobody is reading. kept: pids of those
        that stay all the same."""
        ended = sorted(
            (p for p in self._processes.values() if p.exit is not None),
            key=lambda p: p.exit.end_time_ms if p.exit else 0,
        )
        excess = len(ended) - self._retain_count
        return [
            process
            for number, process in enumerate(ended)
            if not process.viewers
            and process.pid not in kept
            and (number < excess or now_ms >= self._kept_until_ms(process))
        ]

    def _kept_until_ms(self, process: Process) -> int:
        """Of an ended process. One that goes at its end waits for those who may not have seen that."""
        kept_until_ms = self._retain_ms + (0 if process.exit is None else process.exit.end_time_ms)
        if process.facts.remove:
            return min(kept_until_ms, max(process.awaited.values(), default=0))
        return kept_until_ms

    def next_expiry_ms(self, kept: Container[int] = ()) -> int | None:
        """Epoch time at which there are `expired` ones again; None while nothing has ended."""
        ends = (
            self._kept_until_ms(process)
            for process in self._processes.values()
            if process.exit is not None and not process.viewers and process.pid not in kept
        )
        return min(ends, default=None)


def _ended_last(process: Process) -> tuple[bool, int, int]:
    return process.exit is None, 0 if process.exit is None else process.exit.end_time_ms, process.pid


def _taken(name: str, hint: str) -> Refused:
    return Refused(f"the name {name} is taken", code="name-taken", hint=hint)


def unknown_process(handle: int | str) -> NotFound:
    """With the text of protocol 1.0."""
    return NotFound(f"Process {handle} not found", code="unknown-process", hint="list shows those there are")
