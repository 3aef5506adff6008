"""Attaching to a full log of 1 MiB, to its last byte, beside the same bytes over a bare connection."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

from .context import OURS, Context
from .measure import median
from .peers import Runtime
from .peers.base import LOAD
from .result import Figure
from .ws import BINARY, TEXT

_LOG_BYTES = 1 << 20
_PAUSE_SECONDS = 0.01


@contextlib.contextmanager
def bare_server() -> Iterator[int]:
    """Sends 1 MiB to whoever connects, once a byte was sent."""
    data = bytes(_LOG_BYTES)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    with client:
                        client.recv(1)
                        client.sendall(data)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]


def bare_ms(port: int) -> float:
    time.sleep(_PAUSE_SECONDS)
    with socket.create_connection(("127.0.0.1", port)) as client:
        start = time.perf_counter_ns()
        client.sendall(b"x")
        left, buffer = _LOG_BYTES, bytearray(_LOG_BYTES)
        while left:
            left -= client.recv_into(buffer)
        return (time.perf_counter_ns() - start) / 1e6


def attach_ms(peer: Runtime, pid: int) -> tuple[float, int]:
    """Until the answer that follows the last kept byte; and the number of data frames."""
    client, frames = peer.connect(), 0
    time.sleep(_PAUSE_SECONDS)
    start = time.perf_counter_ns()
    client.send(TEXT, f'{{"type":"attach","pid":{pid},"from":"start"}}'.encode())
    while True:
        opcode, payload = client.receive()
        if opcode == BINARY:
            frames += 1
        elif b'"attached"' in bytes(payload):
            break
    duration = (time.perf_counter_ns() - start) / 1e6
    client.close()
    return duration, frames


def run(context: Context) -> list[Figure]:
    times, count = Figure("attach to a full log of 1 MiB", "ms", {}), context.pick(30, 10)
    frames = Figure("frames of it", "", {})
    with bare_server() as port:
        times.values["1 MiB over a bare connection"] = median([bare_ms(port) for _ in range(count)])
    with context.peers(OURS) as peers:
        for peer in peers:
            assert isinstance(peer, Runtime)
            with peer.open([LOAD, "idle", str(2 * _LOG_BYTES)]) as session:
                session.expect(b"!")
                seen = [attach_ms(peer, session.pid) for _ in range(count)]  # type: ignore[attr-defined]
            times.values[OURS] = median([duration for duration, _ in seen])
            frames.values[OURS] = median([number for _, number in seen])
    return [times, frames]
