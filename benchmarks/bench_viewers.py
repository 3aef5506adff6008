"""One process to 50 viewers, each of which reads all it is sent."""

import contextlib
from collections import defaultdict

from .context import OURS, Context
from .measure import Drain, interleaved, median, spinning
from .peers import Peer
from .peers.base import LOAD
from .result import Figure

_VIEWERS = 50


def total_rate(peer: Peer, written: int) -> float:
    """MB/s over all viewers, from the first byte at any to the last byte at all."""
    with peer.open([LOAD, "write", "raw", str(written)]) as first, contextlib.ExitStack() as stack:
        first.expect(b"!")
        sessions = [first, *(stack.enter_context(peer.view(first)) for _ in range(_VIEWERS - 1))]
        drain = Drain(sessions, written)
        first.write(b"\n")
        seen = drain.result()
    if any(one.bytes < written for one in seen):
        raise RuntimeError(f"{peer.name}: a viewer got {min(one.bytes for one in seen)} of {written} bytes")
    seconds = (max(one.last for one in seen) - min(one.first for one in seen)) / 1e9
    return sum(one.bytes for one in seen) / seconds / 1e6


def run(context: Context) -> list[Figure]:
    samples: dict[str, list[float]] = defaultdict(list)
    written = context.pick(32, 4) << 20
    with context.peers("ws+node-pty", "terminado", OURS) as peers, spinning():
        interleaved(
            context.pick(3, 1), peers, lambda peer: samples[peer.name].append(total_rate(peer, written))
        )
    rates = {name: median(values) for name, values in samples.items()}
    figure = Figure(f"one process to {_VIEWERS} viewers, all together", "MB/s", rates)
    figure.demand("of ws+node-pty", figure.ratio(OURS, "ws+node-pty"), ">=", 1.0)
    return [figure]
