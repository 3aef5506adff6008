"""What the levels of isolation cost: a start, bulk output and an echo at each, beside level none."""

import contextlib
import json
import sys
import time
from collections import defaultdict

from .context import Context
from .measure import Drain, echo_ns, interleaved, median, spinning
from .peers import Runtime, Unavailable
from .peers.runtime import RuntimeSession, request
from .result import Figure
from .ws import BINARY, TEXT

LEVELS = ("none", "relaxed", "strict")
_LIMIT_MS = {"relaxed": 3.0, "strict": 10.0}
_MIB = 1 << 20
#: Between two starts: what the last one left to be prepared for the next is done by then.
_PAUSE_SECONDS = 0.2
_WARM_UP = 20


def spawn_fields(*args: str) -> dict[str, object]:
    """The load as a program of the workspace, where every level can run it."""
    return {
        "type": "spawn",
        "processType": "inside",
        "command": "/load",
        "args": list(args),
        "pty": {"cols": 100, "rows": 30},
    }


def start_ms(peer: Runtime, count: int) -> list[float]:
    socket, spawn, durations = peer.connect(), json.dumps(spawn_fields("first")).encode(), []
    for _ in range(count):
        time.sleep(_PAUSE_SECONDS)
        start = time.perf_counter_ns()
        socket.send(TEXT, spawn)
        while socket.receive()[0] != BINARY:
            pass
        durations.append((time.perf_counter_ns() - start) / 1e6)
        while b'"exit"' not in bytes(socket.receive()[1]):
            pass
    socket.close()
    return durations


def open_session(peer: Runtime, *args: str) -> RuntimeSession:
    socket = peer.connect()
    answer = request(socket, **spawn_fields(*args), lingerMs=0)
    session = RuntimeSession(socket, int(answer["pid"]))
    session.expect(b"!")
    return session


def rate(peer: Runtime, written: int) -> float:
    with open_session(peer, "write", "raw", str(written)) as session:
        drain = Drain([session], written)
        session.write(b"\n")
        (seen,) = drain.result()
    return seen.bytes / seen.seconds / 1e6


def run(context: Context) -> list[Figure]:
    starts: dict[str, list[float]] = defaultdict(list)
    rates: dict[str, list[float]] = defaultdict(list)
    echoes: dict[str, list[int]] = defaultdict(list)
    with contextlib.ExitStack() as stack:
        peers = []
        for level in LEVELS:
            try:
                peers.append((level, stack.enter_context(Runtime(sandbox=level))))
            except Unavailable as error:
                print(f"left out: {level}: {error}", file=sys.stderr)
        for _, peer in peers:
            start_ms(peer, 2)
        interleaved(
            context.pick(20, 5),
            peers,
            lambda row: starts[row[0]].extend(start_ms(row[1], context.pick(5, 4))),
        )
        with spinning():
            written = context.pick(128, 32) * _MIB
            interleaved(context.pick(5, 2), peers, lambda row: rates[row[0]].append(rate(row[1], written)))
            sessions = [(level, stack.enter_context(open_session(peer, "echo"))) for level, peer in peers]
            for _, session in sessions:
                echo_ns(session, _WARM_UP)
            interleaved(
                context.pick(10, 3),
                sessions,
                lambda row: echoes[row[0]].extend(echo_ns(row[1], context.pick(200, 60))),
            )
    start = Figure("start to first byte", "ms", {level: median(values) for level, values in starts.items()})
    for level, limit in _LIMIT_MS.items():
        more = start.values[level] - start.values["none"] if level in start.values else None
        start.demand(f"{level}: more than none", more, "<=", limit, "ms")
    output = Figure(
        "PTY output, raw mode", "MB/s", {level: median(values) for level, values in rates.items()}
    )
    echo = Figure("echo, median", "µs", {level: median(values) / 1e3 for level, values in echoes.items()})
    for level in _LIMIT_MS:
        output.demand(f"{level}: of none", output.ratio(level, "none"), ">=", 0.95)
        echo.demand(f"{level}: of none", echo.ratio(level, "none"), "<=", 1.05)
    return [start, output, echo]
