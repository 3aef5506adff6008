"""How to measure: durations, CPU time, memory, the C reader, spinners. Knows no peer and no figure."""

import contextlib
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from .peers import Session
from .peers.base import WORK

T = TypeVar("T")
_TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Drained:
    """What one reader saw; times in ns of the monotonic clock."""

    bytes: int
    frames: int
    control: int
    reads: int
    first: int
    last: int

    @property
    def seconds(self) -> float:
        return max(self.last - self.first, 1) / 1e9


class Drain:
    """The C reader on the descriptors of some sessions (of one peer), in its own process."""

    def __init__(self, sessions: Sequence[Session], total_bytes: int = 0) -> None:
        fds = [session.fileno() for session in sessions]
        command = [str(WORK / "bin" / "drain"), sessions[0].drain_mode, str(total_bytes), *map(str, fds)]
        self._process = subprocess.Popen(command, pass_fds=fds, stdout=subprocess.PIPE)

    def result(self) -> list[Drained]:
        """Waits until the bytes have come."""
        output, _ = self._process.communicate()
        return [Drained(**one) for one in json.loads(output)]

    def stop(self) -> list[Drained]:
        self._process.terminate()
        return self.result()


@contextlib.contextmanager
def spinning(active: bool = True) -> Iterator[None]:
    """Keeps the CPUs from halting, at the lowest priority there is."""
    if not active:
        yield
        return
    process = subprocess.Popen([str(WORK / "bin" / "spin")])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of the processes so far, without their children."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total * _TICK_SECONDS


def own_bytes(pids: Iterable[int], except_under: str) -> int:
    """Proportional memory of the processes, without mappings of files under a path (the kept output)."""
    return sum(_own_bytes(pid, except_under) for pid in pids)


def _own_bytes(pid: int, except_under: str) -> int:
    total, counted = 0, True
    with open(f"/proc/{pid}/smaps") as file:
        for line in file:
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024 if counted else 0
            elif not line[0].isupper():
                counted = except_under not in line
    return total


def resident_bytes(pids: Iterable[int]) -> int:
    """Anonymous resident memory: cheap to read, and what a growing queue shows in."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/status") as file:
            total += sum(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon:"))
    return total


def echo_ns(session: Session, count: int, gap_seconds: float = 0.002) -> list[int]:
    """Durations from sending one byte to having it back, with a pause between, as somebody types."""
    durations = []
    for _ in range(count):
        time.sleep(gap_seconds)
        start = time.perf_counter_ns()
        session.write(b"x")
        session.read()
        durations.append(time.perf_counter_ns() - start)
    return durations


def interleaved(rounds: int, peers: Sequence[T], once: Callable[[T], None]) -> None:
    """A B C A B C ..., so that a slow moment of the machine meets all of them."""
    for _ in range(rounds):
        for peer in peers:
            once(peer)


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def percentile(values: Sequence[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
