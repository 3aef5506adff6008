"""One file of 1 GiB over HTTP each way, beside nginx; what it takes of memory, and what terminals notice."""

import os
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .context import OURS, Context
from .http import Moving
from .measure import echo_ns, interleaved, median, percentile, resident_bytes
from .peers import Nginx, Peer, Runtime, Session
from .peers.base import LOAD
from .result import Figure

_MIB = 1 << 20
_GROWN_MIB, _ECHO_MS = 64, 10.0


@dataclass
class Server:
    """One of the two, with the file in the folder that it serves."""

    peer: Peer
    port: int
    token: str
    base: str
    folder: Path

    @property
    def name(self) -> str:
        return self.peer.name

    def move(self, method: str, file: Path) -> Moving:
        # What was written before is another run's: nobody is to wait for its way to the disk.
        os.sync()
        path = f"{self.base}/{'up' if method == 'put' else file.name}"
        return Moving(method, self.port, self.token, path, file)


@dataclass
class Samples:
    """rate: MB/s, by server. echoes: of a terminal of the runtime, by who moves a file meanwhile. grown: the
    runtime's own."""

    rate: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    echoes: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    grown: int = 0


def server_of(peer: Peer, file: Path) -> Server:
    if isinstance(peer, Runtime):
        folder = peer.state.parent / "workspace"
        found = Server(peer, peer.port, peer.token, "/v1/files", folder)
    else:
        assert isinstance(peer, Nginx)
        found = Server(peer, peer.port, "", "", peer.root)
    os.link(file, found.folder / file.name)
    return found


def timed(server: Server, method: str, file: Path, samples: Samples) -> None:
    samples.rate[server.name].append(file.stat().st_size / server.move(method, file).seconds() / 1e6)


def watched(server: Server, method: str, file: Path, terminal: Session, samples: Samples) -> None:
    """Types into a terminal while a file is moved, and looks at the server's memory."""
    before, moving = resident_bytes(server.peer.pids()), server.move(method, file)
    while moving.going_on:
        samples.echoes[server.name] += echo_ns(terminal, 10)
        if server.name == OURS:
            samples.grown = max(samples.grown, resident_bytes(server.peer.pids()) - before)
    moving.seconds()


def measure(context: Context, method: str, file: Path) -> Samples:
    samples = Samples()
    with context.peers("nginx", OURS) as peers:
        servers = [server_of(peer, file) for peer in peers]
        once: Callable[[Server], None] = lambda server: timed(server, method, file, samples)  # noqa: E731
        interleaved(context.pick(7, 3), servers, once)
        ours = next(server for server in servers if server.name == OURS)
        with ours.peer.open([LOAD, "echo"]) as terminal:
            terminal.expect(b"!")
            for _ in range(context.pick(5, 2)):
                samples.echoes["nobody"] += echo_ns(terminal, 100)
                for server in servers:
                    watched(server, method, file, terminal, samples)
    return samples


def figures(label: str, samples: Samples) -> list[Figure]:
    rate = Figure(f"{label}, 1 GiB", "MB/s", {name: median(each) for name, each in samples.rate.items()})
    rate.demand("of nginx", rate.ratio(OURS, "nginx"), ">=", 0.5)
    grown = Figure(f"{label}: server grows by", "MB", {OURS: samples.grown / 1e6})
    grown.demand("under 64 MiB", grown.values[OURS], "<", _GROWN_MIB * _MIB / 1e6, "MB")
    worst = {name: percentile(each, 99) / 1e6 for name, each in samples.echoes.items()}
    echo = Figure(f"{label}: echo of a terminal meanwhile, 99th percentile, by who moves a file", "ms", worst)
    echo.demand("under 10 ms", worst[OURS], "<", _ECHO_MS, "ms")
    return [rate, grown, echo]


def run(context: Context) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="bench-files-") as folder:
        file = Path(folder, "file")
        with file.open("wb") as content:
            for _ in range(context.pick(1024, 256)):
                content.write(os.urandom(_MIB))
        return [
            *figures("download", measure(context, "get", file)),
            *figures("upload", measure(context, "put", file)),
        ]
