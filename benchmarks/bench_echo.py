"""One byte there and back, while nothing else runs: a raw program that writes what it reads, on a PTY."""

import contextlib
from collections import defaultdict

from .context import OURS, Context
from .measure import echo_ns, interleaved, median, percentile, spinning
from .peers import Session
from .peers.base import LOAD
from .result import Figure

PEERS = ("kernel", "ws+node-pty", "terminado", "openssh", OURS)
_WARM_UP = 20


def figures(samples: dict[str, list[int]], label: str) -> tuple[Figure, Figure]:
    middle = {name: median(values) / 1e3 for name, values in samples.items()}
    worst = {name: percentile(values, 99) / 1e3 for name, values in samples.items()}
    return Figure(f"echo, median, {label}", "µs", middle), Figure(
        f"echo, 99th percentile, {label}", "µs", worst
    )


def measure(context: Context, spin: bool) -> dict[str, list[int]]:
    samples: dict[str, list[int]] = defaultdict(list)
    with context.peers(*PEERS) as peers, contextlib.ExitStack() as stack:
        sessions: list[tuple[str, Session]] = []
        for peer in peers:
            session = stack.enter_context(peer.open([LOAD, "echo"]))
            session.expect(b"!")
            echo_ns(session, _WARM_UP)
            sessions.append((peer.name, session))
        stack.enter_context(spinning(spin))
        per_round = context.pick(200, 60)
        interleaved(
            context.pick(10, 3), sessions, lambda one: samples[one[0]].extend(echo_ns(one[1], per_round))
        )
    return samples


def run(context: Context) -> list[Figure]:
    found = []
    for spin, label in ((False, "CPUs halting"), (True, "CPUs spinning")):
        middle, worst = figures(measure(context, spin), label)
        middle.demand("of ws+node-pty", middle.ratio(OURS, "ws+node-pty"), "<=", 0.9)
        middle.demand("of a bare PTY echo", middle.ratio(OURS, "kernel"), "<=", 2.5)
        worst.demand("of ws+node-pty", worst.ratio(OURS, "ws+node-pty"), "<", 1.0)
        found += [middle, worst]
    return found
