"""A watch of 100,000 files: from an edit to its message, CPU while nothing happens, and memory."""

import ctypes
import json
import os
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path

from .context import OURS, Context
from .measure import cpu_seconds, median, percentile, resident_bytes
from .peers.runtime import Runtime, request
from .result import Figure
from .ws import TEXT, WebSocket

_BARE = "inotify, a bare loop"
_MODIFY = 0x2
_EVENT = struct.Struct("iIII")
#: Longer than the pause after a message: each edit is the first after silence.
_GAP_SECONDS = 0.15
_SILENCE_SECONDS = 3.0


def _fill(top: Path, files: int) -> None:
    for number in range(files):
        folder = top / f"package-{number // 1000}" / f"module-{number // 50}"
        if number % 50 == 0:
            folder.mkdir(parents=True)
        (folder / f"component-{number}.py").touch()


def _edits(file: Path, told: Callable[[], None], count: int) -> list[int]:
    """ns from the write of a line to the news of it."""
    found = []
    for number in range(count):
        time.sleep(_GAP_SECONDS)
        start = time.perf_counter_ns()
        with file.open("a") as opened:
            opened.write(f"line {number}\n")
        told()
        found.append(time.perf_counter_ns() - start)
    return found


def _told(socket: WebSocket) -> None:
    while True:
        opcode, payload = socket.receive()
        if opcode == TEXT and json.loads(bytes(payload))["type"] == "filesChanged":
            return


def _bare(file: Path, count: int) -> list[int]:
    """The least that there can be: one watch, one read."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_CLOEXEC)
    assert libc.inotify_add_watch(fd, os.fsencode(file.parent), _MODIFY) >= 0
    try:
        return _edits(file, lambda: _discard(os.read(fd, 4096)), count)
    finally:
        os.close(fd)


def _discard(events: bytes) -> None:
    assert len(events) >= _EVENT.size


def run(context: Context) -> list[Figure]:
    files, count, idle_seconds = context.pick((100_000, 200, 20), (10_000, 40, 5))
    with Runtime() as peer:
        top = peer.workspace / "tree"
        _fill(top, files)
        socket = peer.connect()
        before = resident_bytes(peer.pids())
        start = time.perf_counter()
        request(socket, type="watchFiles", path="/tree")
        begun = time.perf_counter() - start
        file = next(top.rglob("component-0.py"))
        ours = _edits(file, lambda: _told(socket), count)
        # What follows the last edit: one scan.
        time.sleep(_SILENCE_SECONDS + begun)
        cpu = cpu_seconds(peer.pids())
        time.sleep(idle_seconds)
        cpu = cpu_seconds(peer.pids()) - cpu
        memory = resident_bytes(peer.pids()) - before
        bare = _bare(file, count)
        socket.close()
        shutil.rmtree(top)
    middle = Figure("edit to message, median", "ms", {OURS: median(ours) / 1e6, _BARE: median(bare) / 1e6})
    middle.demand("under 50 ms", middle.values[OURS], "<", 50.0, "ms")
    worst = Figure(
        "edit to message, 99th percentile",
        "ms",
        {OURS: percentile(ours, 99) / 1e6, _BARE: percentile(bare, 99) / 1e6},
    )
    idle = Figure("CPU while nothing happens", "% of one CPU", {OURS: cpu / idle_seconds * 100})
    idle.demand("under 1 %", idle.values[OURS], "<", 1.0, "%")
    kept = Figure(f"memory for {files:,} files", "MiB", {OURS: memory / (1 << 20)})
    kept.demand("under 64 MiB", kept.values[OURS], "<", 64.0, "MiB")
    return [middle, worst, idle, kept, Figure("until it is watched", "s", {OURS: begun})]
