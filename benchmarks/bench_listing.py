"""The first page of a directory with 20,000 entries, beside programs that need no server: `ls -l`, and a loop
that looks at each entry."""

import os
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from .context import OURS, Context
from .measure import interleaved, median, percentile, resident_bytes
from .peers.runtime import Runtime, request
from .result import Figure
from .ws import WebSocket

ENTRIES = 20_000
_LS, _LOOP = "ls -l", "scandir and stat"


def fill(folder: Path, entries: int) -> None:
    folder.mkdir()
    for number in range(entries):
        (folder / f"component-{number:05}.py").touch()


def _ls(folder: Path) -> None:
    subprocess.run(["ls", "-l", folder], stdout=subprocess.DEVNULL, check=True)


def _loop(folder: Path) -> None:
    """Without the start of a program, and without words about what was found."""
    with os.scandir(folder) as entries:
        sorted((entry.name, entry.stat(follow_symlinks=False).st_size) for entry in entries)


def _page(socket: WebSocket, folder: Path) -> None:
    page = request(socket, type="listFiles", path=f"/{folder.name}")
    assert len(page["files"]) == 1000
    assert page["next"]


def run(context: Context) -> list[Figure]:
    samples: dict[str, list[float]] = defaultdict(list)
    with Runtime() as peer:
        folder = peer.workspace / "many"
        fill(folder, ENTRIES)
        socket = peer.connect()
        ways: dict[str, Callable[[], None]] = {
            OURS: lambda: _page(socket, folder),
            _LS: lambda: _ls(folder),
            _LOOP: lambda: _loop(folder),
        }
        for way in ways.values():  # The first time fills caches.
            way()
        before = resident_bytes(peer.pids())

        def once(name: str) -> None:
            start = time.perf_counter()
            ways[name]()
            samples[name].append((time.perf_counter() - start) * 1000)

        interleaved(context.pick(50, 15), list(ways), once)
        grown = (resident_bytes(peer.pids()) - before) / (1 << 20)
        socket.close()
    page = Figure(
        f"first page of {ENTRIES:,} entries, median",
        "ms",
        {name: median(all_) for name, all_ in samples.items()},
    )
    page.demand("under 50 ms", page.values[OURS], "<", 50.0, "ms")
    worst = Figure(
        f"first page of {ENTRIES:,} entries, 99th percentile",
        "ms",
        {name: percentile(all_, 99) for name, all_ in samples.items()},
    )
    memory = Figure("listing: server grows by", "MiB", {OURS: grown})
    memory.demand("under 64 MiB", grown, "<", 64.0, "MiB")
    return [page, worst, memory]
