"""A client that stops reading while its process floods: what that costs the server, and everybody else."""

import os
import select
import tempfile
import time
from pathlib import Path

from .context import OURS, Context
from .measure import Drain, echo_ns, median, percentile, resident_bytes
from .peers import Peer
from .peers.base import LOAD
from .result import Figure

PEERS = ("ws+node-pty", "terminado", OURS)
_GONE_MS = 10_000
_ENDLESS_BYTES = 1 << 60


def gone_ms(pidfd: int, start_ns: int) -> float:
    """From a moment until the process is gone; it may be a zombie then."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll(_GONE_MS)
    os.close(pidfd)
    return (time.perf_counter_ns() - start_ns) / 1e6


def once(peer: Peer, count: int, row: dict[str, float]) -> None:
    with tempfile.TemporaryDirectory() as folder, peer.open([LOAD, "echo"]) as bystander:
        bystander.expect(b"!")
        pid_file = Path(folder, "pid")
        flood = f"echo $$ > {pid_file}; exec {LOAD} write tty {_ENDLESS_BYTES}"
        with peer.open(["sh", "-c", flood]) as stalled, peer.view(stalled) as other:
            stalled.expect(b"!")
            before, drain = resident_bytes(peer.pids()), Drain([other])
            other.write(b"\n")
            echoes, most = [], before
            for _ in range(count):
                echoes += echo_ns(bystander, 50)
                most = max(most, resident_bytes(peer.pids()))
            pidfd = os.pidfd_open(int(pid_file.read_text()))
            start = time.perf_counter_ns()
            other.write(b"\x03")
            row["interrupt"] = gone_ms(pidfd, start)
            most = max(most, resident_bytes(peer.pids()))
            drain.stop()
    row |= {
        "grown": (most - before) / 1e6,
        "median": median(echoes) / 1e3,
        "p99": percentile(echoes, 99) / 1e3,
    }


def run(context: Context) -> list[Figure]:
    rows: dict[str, dict[str, float]] = {}
    with context.peers(*PEERS) as peers:
        for peer in peers:
            # 50 echoes take some 120 ms; the whole outlasts the 10 s a stalled viewer is waited for.
            once(peer, context.pick(120, 20), rows.setdefault(peer.name, {}))
    pick = {
        key: {name: row[key] for name, row in rows.items()} for key in ("grown", "interrupt", "median", "p99")
    }
    grown = Figure("a stalled client in a flood: server grows by", "MB", pick["grown"])
    grown.demand("under 8 MiB", grown.values.get(OURS), "<", 8 * 1.048576, "MB")
    interrupt = Figure("Ctrl-C from another client: process gone after", "ms", pick["interrupt"])
    interrupt.demand("within 50 ms", interrupt.values.get(OURS), "<=", 50.0, "ms")
    middle = Figure("echo of a third client meanwhile, median", "µs", pick["median"])
    worst = Figure("echo of a third client meanwhile, 99th percentile", "µs", pick["p99"])
    return [grown, interrupt, middle, worst]
