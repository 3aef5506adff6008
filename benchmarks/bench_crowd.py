"""A key each 100 ms beside eight floods: what the floods keep of their rate, and how long an echo takes."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from .bench_flood import gated
from .context import OURS, Context
from .measure import Drain, echo_ns, interleaved, median, percentile
from .peers import Session
from .peers.base import LOAD
from .peers.runtime import Runtime, RuntimeSession, request
from .result import Figure
from .ws import WebSocket

_FLOODS = 8
_KEY_SECONDS = 0.1
_SETTLE_SECONDS = 1.0
#: Bounds of the pause after a key for the curve; what the product has goes by its own name.
_BOUNDS_MS = (0, 2, 5, 10, 20)


@dataclass
class Seen:
    """echoes: durations in ns. quiet, typing: bytes of all floods, and ns, without and with typing."""

    echoes: list[int] = field(default_factory=list)
    quiet: list[int] = field(default_factory=lambda: [0, 0])
    typing: list[int] = field(default_factory=lambda: [0, 0])


@contextlib.contextmanager
def _floods(peer: Runtime, pty: bool) -> Iterator[set[int]]:
    """Eight processes that write as fast as they are read, by one client each; their pids."""
    with contextlib.ExitStack() as stack:
        sessions: list[Session] = []
        for _ in range(_FLOODS):
            session = stack.enter_context(peer.open(gated("exec yes"), pty=pty))
            session.expect(b"!")
            sessions.append(session)
        drain = Drain(sessions)
        stack.callback(drain.stop)
        for session in sessions:
            session.write(b"\n")
        yield {session.pid for session in sessions if isinstance(session, RuntimeSession)}


def _written(control: WebSocket, pids: set[int]) -> int:
    rows = request(control, type="list")["processes"]
    return sum(int(row["nextOffset"]) for row in rows if row["pid"] in pids)


@contextlib.contextmanager
def _counted(total: list[int], control: WebSocket, pids: set[int]) -> Iterator[None]:
    start, before = time.perf_counter_ns(), _written(control, pids)
    yield
    total[0] += _written(control, pids) - before
    total[1] += time.perf_counter_ns() - start


def _round(peer: Runtime, pty: bool, keys: int, seen: Seen) -> None:
    """Half of the time without keys before them and half behind, so that a drift of the machine evens out."""
    control = peer.connect()
    with peer.open([LOAD, "echo"]) as session, _floods(peer, pty) as pids:
        session.expect(b"!")
        time.sleep(_SETTLE_SECONDS)
        for phase in ("quiet", "typing", "quiet"):
            with _counted(getattr(seen, phase), control, pids):
                if phase == "typing":
                    seen.echoes += echo_ns(session, keys, _KEY_SECONDS)
                else:
                    time.sleep(keys * _KEY_SECONDS / 2)
    control.close()


def measure(peers: dict[str, Runtime], pty: bool, rounds: int, keys: int) -> dict[str, Seen]:
    found: dict[str, Seen] = defaultdict(Seen)
    interleaved(rounds, list(peers), lambda name: _round(peers[name], pty, keys, found[name]))
    return found


def figures(found: dict[str, Seen], label: str) -> list[Figure]:
    def figure(name: str, unit: str, values: dict[str, float], *demand: object) -> Figure:
        made = Figure(f"{name}, {label}", unit, values)
        if demand:
            made.demand(str(demand[0]), values[OURS], str(demand[1]), float(str(demand[2])), unit)
        return made

    quiet = {name: seen.quiet[0] / seen.quiet[1] * 1e3 for name, seen in found.items()}
    typing = {name: seen.typing[0] / seen.typing[1] * 1e3 for name, seen in found.items()}
    kept = {name: typing[name] / quiet[name] for name in found}
    middle = {name: median(seen.echoes) / 1e6 for name, seen in found.items()}
    worst = {name: percentile(seen.echoes, 99) / 1e6 for name, seen in found.items()}
    return [
        figure("floods without typing", "MB/s", quiet),
        figure("floods with typing", "MB/s", typing),
        figure("what floods keep", "", kept, "at least 0.8", ">=", 0.8),
        figure("echo, median", "ms", middle, "under 1.5 ms", "<", 1.5),
        figure("echo, 99th percentile", "ms", worst, "under 8 ms", "<", 8.0),
    ]


def run(context: Context) -> list[Figure]:
    with contextlib.ExitStack() as stack:
        peers = {OURS: stack.enter_context(Runtime())}
        for bound in _BOUNDS_MS:
            peers[f"a pause of at most {bound} ms"] = stack.enter_context(Runtime(pause_seconds=bound / 1e3))
        rounds, keys = context.pick((6, 100), (2, 50))
        terminals = measure(peers, True, rounds, keys)
        pipes = measure(peers, False, rounds, keys)
    return [
        *figures(terminals, f"{_FLOODS} terminals that flood"),
        *figures(pipes, f"{_FLOODS} pipes that flood"),
    ]
