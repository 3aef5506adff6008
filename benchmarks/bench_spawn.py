"""From asking for a process on a PTY to its first byte; also while the server holds 1 GB. No sandbox."""

import contextlib
import json
import subprocess
import time
from collections import defaultdict

from .context import OURS, Context
from .measure import interleaved, median
from .peers import NodePty, Peer, Runtime, Unavailable
from .peers.base import LOAD, WORK, clean_environment
from .result import Figure
from .ws import BINARY, TEXT, WebSocket

_BALLAST_BYTES = 1 << 30
_PER_ROUND = 20
_PROGRAM = [LOAD, "first"]
BALLAST = f"{OURS}, server holds 1 GB"


def bare_ms() -> list[float]:
    command = [str(WORK / "bin" / "spawn"), str(_PER_ROUND), *_PROGRAM]
    result = subprocess.run(command, check=True, capture_output=True, text=True, env=clean_environment())
    return [int(line) / 1e6 for line in result.stdout.split()]


def nodepty_ms(peer: NodePty) -> list[float]:
    durations = []
    for _ in range(_PER_ROUND):
        with peer.open_late(_PROGRAM) as session:
            start = time.perf_counter_ns()
            session.write(b"\n")
            session.read()
            durations.append((time.perf_counter_ns() - start) / 1e6)
        time.sleep(0.002)
    return durations


def runtime_ms(peer: Runtime) -> list[float]:
    socket = peer.connect()
    spawn = json.dumps(peer.spawn_fields(_PROGRAM)).encode()
    durations = [_first_output_ms(socket, spawn) for _ in range(_PER_ROUND)]
    socket.close()
    return durations


def _first_output_ms(socket: WebSocket, spawn: bytes) -> float:
    time.sleep(0.002)
    start = time.perf_counter_ns()
    socket.send(TEXT, spawn)
    while socket.receive()[0] != BINARY:
        pass
    duration = (time.perf_counter_ns() - start) / 1e6
    while b'"exit"' not in bytes(socket.receive()[1]):
        pass
    return duration


def run(context: Context) -> list[Figure]:
    samples: dict[str, list[float]] = defaultdict(list)
    with context.peers("ws+node-pty", OURS) as peers, contextlib.ExitStack() as stack:
        rows: list[tuple[str, Peer | None]] = [("kernel", None), *((peer.name, peer) for peer in peers)]
        if any(isinstance(peer, Runtime) for peer in peers):
            with contextlib.suppress(Unavailable):
                rows.append((BALLAST, stack.enter_context(Runtime(_BALLAST_BYTES))))

        def once(row: tuple[str, Peer | None]) -> None:
            name, peer = row
            if isinstance(peer, NodePty):
                samples[name] += nodepty_ms(peer)
            elif isinstance(peer, Runtime):
                samples[name] += runtime_ms(peer)
            else:
                samples[name] += bare_ms()

        interleaved(context.pick(6, 2), rows, once)
    figure = Figure("spawn to first byte", "ms", {name: median(values) for name, values in samples.items()})
    for name in (OURS, BALLAST):
        above = figure.values[name] - figure.values["kernel"] if name in figure.values else None
        figure.demand(f"{name}: above a bare fork and exec", above, "<=", 3.0, "ms")
    return [figure]
