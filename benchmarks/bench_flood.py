"""A key each 100 ms, there and back, while another client's process floods through the same server."""

import contextlib
import tempfile
from collections import defaultdict
from collections.abc import Iterator

from .bench_echo import PEERS, figures
from .context import OURS, Context
from .measure import Drain, Drained, echo_ns, interleaved
from .peers import Peer
from .peers.base import LOAD
from .result import Figure

_FILE_BYTES = 64 << 20
_SETTLE = 5  # echoes until the flood is at its rate
_KEY_SECONDS = 0.1


def gated(command: str) -> list[str]:
    """The shell command, once a line came: so no byte of it is read before the C reader is there."""
    return ["sh", "-c", f"printf '!'; read line; {command}"]


@contextlib.contextmanager
def flooding(peer: Peer, command: str) -> Iterator[list[Drained]]:
    """A process that writes as fast as it is read, and a client that reads all of it."""
    with peer.open(gated(command)) as session:
        session.expect(b"!")
        drain = Drain([session])
        session.write(b"\n")
        seen: list[Drained] = []
        try:
            yield seen
        finally:
            seen += drain.stop()


def measure(context: Context, command: str) -> tuple[dict[str, list[int]], dict[str, list[float]]]:
    samples: dict[str, list[int]] = defaultdict(list)
    rates: dict[str, list[float]] = defaultdict(list)
    count = context.pick(100, 40)

    def once(peer: Peer) -> None:
        with peer.open([LOAD, "echo"]) as session:
            session.expect(b"!")
            with flooding(peer, command) as seen:
                echo_ns(session, _SETTLE, _KEY_SECONDS)
                samples[peer.name] += echo_ns(session, count, _KEY_SECONDS)
        rates[peer.name].append(seen[0].bytes / seen[0].seconds / 1e6)

    with context.peers(*PEERS) as peers:
        interleaved(context.pick(4, 2), peers, once)
    return samples, rates


def flood_figures(context: Context, command: str, label: str) -> list[Figure]:
    samples, rates = measure(context, command)
    middle, worst = figures(samples, f"beside {label}")
    ours = middle.values.get(OURS)
    middle.demand("under 500 µs", ours, "<", 500.0, "µs")
    # The bare loop is no peer: nobody is served by it.
    others = [value for name, value in worst.values.items() if name not in (OURS, "kernel")]
    best = worst.values[OURS] / min(others) if others and ours is not None else None
    worst.demand("of the best peer", best, "<", 1.0)
    rate = Figure(f"rate of {label} meanwhile", "MB/s", {name: sum(r) / len(r) for name, r in rates.items()})
    return [middle, worst, rate]


def run(context: Context) -> list[Figure]:
    with tempfile.NamedTemporaryFile() as file:
        line = bytes(range(33, 112)) + b"\n"
        file.write(line * (_FILE_BYTES // len(line)))
        file.flush()
        loop = f"while :; do cat {file.name}; done"
        return flood_figures(context, "exec yes", "yes") + flood_figures(context, loop, "cat of a large file")
