"""What one more idle session costs the server: proportional memory, without the kept output."""

import contextlib
import resource

from .context import OURS, Context
from .measure import own_bytes
from .peers import Peer, Runtime, Session
from .peers.base import LOAD
from .result import Figure

_KEPT_BYTES = 4096  # each process has written this much


def allow_many_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def connected_cost(peer: Peer, count: int, sessions: list[Session]) -> float:
    """KiB a session of which each has a client of its own."""
    before = own_bytes(peer.pids(), peer.own_files())
    for _ in range(count):
        session = peer.open([LOAD, "idle", str(_KEPT_BYTES)])
        sessions.append(session)
        session.expect(b"!")
    return (own_bytes(peer.pids(), peer.own_files()) - before) / count / 1024


def left_cost(peer: Runtime, count: int) -> float:
    """KiB a process whose client has left."""
    before = own_bytes(peer.pids(), peer.own_files())
    socket = peer.connect()
    for _ in range(count):
        peer.spawn(socket, [LOAD, "idle", str(_KEPT_BYTES)])
    socket.close()
    return (own_bytes(peer.pids(), peer.own_files()) - before) / count / 1024


def figure_for(context: Context, count: int) -> Figure:
    figure = Figure(f"memory a session, {count} idle sessions", "KiB", {})
    with context.peers("ws+node-pty", "terminado", OURS) as peers:
        for peer in peers:
            with contextlib.ExitStack() as stack:
                sessions: list[Session] = []
                stack.callback(lambda kept: [session.close() for session in kept], sessions)
                connected_cost(peer, 10, sessions)  # what only the first ones cost
                figure.values[peer.name] = connected_cost(peer, count, sessions)
            if isinstance(peer, Runtime):
                figure.values[f"{OURS}, nobody attached"] = left_cost(peer, min(count, 900))
    figure.demand("at most 32 KiB", figure.values.get(OURS), "<=", 32.0, "KiB")
    return figure


def run(context: Context) -> list[Figure]:
    allow_many_files()
    return [figure_for(context, count) for count in context.pick((100, 1000), (100,))]
