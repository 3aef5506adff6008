"""Which processes use a folder, as far as this user may read /proc. Knows no process of the runtime."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def users(folder: Path) -> list[int]:
    """Pids of processes that were started from files below a folder, have one mapped or as an argument, or
    have the folder in their mount namespace. Only root sees other users' processes."""
    inside = os.fsencode(folder.resolve()) + b"/"
    return sorted(
        int(pid) for pid in os.listdir("/proc") if pid.isdigit() and _uses(Path("/proc", pid), inside)
    )


def _uses(process: Path, inside: bytes) -> bool:
    if process.name == str(os.getpid()):
        return False
    with contextlib.suppress(OSError):
        if (os.fsencode(os.readlink(process / "exe")) + b"/").startswith(inside):
            return True
    return any(_holds(process / name, inside) for name in ("cmdline", "maps", "mountinfo"))


def _holds(file: Path, inside: bytes) -> bool:
    with contextlib.suppress(OSError):
        return inside in file.read_bytes().replace(b" ", b"/ ")
    return False
