"""One byte there and back beside eight floods and a client that never reads; the peers have one flood."""

import contextlib
from collections import defaultdict

from .bench_flood import flooding, gated
from .context import OURS, Context
from .measure import echo_ns, interleaved, median, percentile
from .peers import Peer
from .peers.base import LOAD
from .result import Figure

PEERS = ("ws+node-pty", "terminado", "openssh", OURS)
_FLOODS = 8
_FLOOD = "exec yes"
_SETTLE = 30  # echoes until the floods are at their rate


def run(context: Context) -> list[Figure]:
    label = f"{_FLOODS} floods and a stalled client ({OURS}), one flood (others)"
    samples: dict[str, list[int]] = defaultdict(list)
    rates: dict[str, list[float]] = defaultdict(list)
    count = context.pick(300, 200)

    def once(peer: Peer) -> None:
        with contextlib.ExitStack() as stack:
            session = stack.enter_context(peer.open([LOAD, "echo"]))
            session.expect(b"!")
            if peer.name == OURS:
                stalled = stack.enter_context(peer.open(gated(_FLOOD)))
                stalled.expect(b"!")
                stalled.write(b"\n")
            floods = [
                stack.enter_context(flooding(peer, _FLOOD))
                for _ in range(_FLOODS if peer.name == OURS else 1)
            ]
            echo_ns(session, _SETTLE)
            samples[peer.name] += echo_ns(session, count)
        rates[peer.name].append(sum(drained.bytes / drained.seconds for [drained] in floods) / 1e6)

    with context.peers(*PEERS) as peers:
        interleaved(context.pick(6, 4), peers, once)
    middle = Figure(f"echo, median, beside {label}", "ms", {n: median(s) / 1e6 for n, s in samples.items()})
    worst = Figure(
        f"echo, 99th percentile, beside {label}",
        "ms",
        {n: percentile(s, 99) / 1e6 for n, s in samples.items()},
    )
    ours = worst.values.get(OURS)
    worst.demand("under 20 ms", ours, "<", 20.0, "ms")
    others = [value for name, value in worst.values.items() if name != OURS]
    worst.demand("of the best peer", ours / min(others) if others and ours is not None else None, "<", 1.0)
    rate = Figure(f"rate of {label}", "MB/s", {name: sum(r) / len(r) for name, r in rates.items()})
    return [middle, worst, rate]
