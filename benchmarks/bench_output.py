"""256 MiB from a PTY to one client, in raw and in default tty mode; and through pipes."""

from collections import defaultdict

from .context import OURS, Context
from .measure import Drain, cpu_seconds, interleaved, median, spinning
from .peers import Peer
from .peers.base import LOAD
from .result import Figure

_MIB = 1 << 20
_PTY_PEERS = ("kernel", "ws+node-pty", "terminado", "openssh", OURS)
_PIPE_PEERS = ("pipe-to-tcp", "ws+node-pty", OURS)
Samples = dict[str, dict[str, list[float]]]


def expected_bytes(written: int, mode: str) -> int:
    """The default tty mode adds a carriage return to each line of 80 bytes."""
    return written + written // 80 if mode == "tty" else written


def once(peer: Peer, mode: str, written: int, samples: Samples) -> None:
    with peer.open([LOAD, "write", mode, str(written)], pty=mode != "pipe") as session:
        session.expect(b"!")
        cpu = cpu_seconds(peer.pids())
        drain = Drain([session], expected_bytes(written, mode))
        session.write(b"\n")
        (seen,) = drain.result()
        cpu = cpu_seconds(peer.pids()) - cpu
    if seen.bytes < expected_bytes(written, mode):
        raise RuntimeError(f"{peer.name}: {seen.bytes} of {expected_bytes(written, mode)} bytes came")
    row = samples[peer.name]
    row["rate"].append(seen.bytes / seen.seconds / 1e6)
    row["frames"].append(seen.frames)
    row["cpu"].append(cpu)


def measure(context: Context, mode: str, names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    samples: Samples = defaultdict(lambda: defaultdict(list))
    written = context.pick(256, 32) * _MIB
    with context.peers(*names) as peers, spinning():
        interleaved(context.pick(5, 2), peers, lambda peer: once(peer, mode, written, samples))
    return {name: {key: median(values) for key, values in row.items()} for name, row in samples.items()}


def column(rows: dict[str, dict[str, float]], key: str, *without: str) -> dict[str, float]:
    return {name: row[key] for name, row in rows.items() if name not in without}


def pty_figures(context: Context, mode: str, label: str) -> list[Figure]:
    rows = measure(context, mode, _PTY_PEERS)
    rate = Figure(f"PTY output, {label}", "MB/s", column(rows, "rate"))
    rate.demand("of the bare loop", rate.ratio(OURS, "kernel"), ">=", 0.95)
    frames = Figure(f"frames (bare loop: reads), {label}", "", column(rows, "frames", "openssh"))
    frames.demand("of the reads", frames.ratio(OURS, "kernel"), "<=", 0.25)
    cpu = Figure(f"server CPU time, {label}", "s", column(rows, "cpu", "openssh", "kernel"))
    cpu.demand("of ws+node-pty", cpu.ratio(OURS, "ws+node-pty"), "<", 1.0)
    return [rate, frames, cpu]


def run(context: Context) -> list[Figure]:
    figures = pty_figures(context, "raw", "raw mode") + pty_figures(context, "tty", "default tty mode")
    rate = Figure("pipe output", "MB/s", column(measure(context, "pipe", _PIPE_PEERS), "rate"))
    rate.demand("of a bare pipe-to-TCP copy", rate.ratio(OURS, "pipe-to-tcp"), ">=", 0.6)
    return [*figures, rate]
