"""Limits on a tree where the kernel has no control group for it: looks at /proc from time to time."""

from __future__ import annotations

from typing import NamedTuple

from mhnos_runtime import proc
from mhnos_runtime.launch import Limits

#: Between two looks. A process can go over its limit for so long; looking costs some 20 µs a process.
INTERVAL_SECONDS = 0.2


class Look(NamedTuple):
    """memory_bytes: of the tree, what several processes share counted once where it matters. reason: of
    its end when a limit is exceeded, as in an exit record, or ""."""

    memory_bytes: int
    reason: str


def look(os_pid: int, limits: Limits) -> Look:
    """What the tree uses against what it may. The quick figure counts shared pages twice, so one that is too
    high is checked by the exact one before it counts."""
    usage = proc.usage(os_pid)
    if usage is None:
        return Look(0, "")
    memory = usage.rss_bytes
    if limits.memory_bytes and memory > limits.memory_bytes:
        memory = sum(map(_own_share, proc.descendants([os_pid])))
        if memory > limits.memory_bytes:
            return Look(memory, "memory")
    if limits.tasks and usage.tasks > limits.tasks:
        return Look(memory, "killed")
    return Look(memory, "")


def _own_share(os_pid: int) -> int:
    """Memory with what is shared divided among those who share it, bytes (proc(5), smaps_rollup)."""
    try:
        with open(f"/proc/{os_pid}/smaps_rollup", "rb") as file:
            rows = dict(line.split(b":", 1) for line in file if b":" in line and line[:1].isalpha())
        return int(rows[b"Pss"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 0
