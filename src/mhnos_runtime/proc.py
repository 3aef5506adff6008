"""What /proc tells about processes: children, descendants, what a tree uses. Knows no runtime process."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import sys
from collections.abc import Iterable
from typing import NamedTuple

_TICK_MS = 1000 // os.sysconf("SC_CLK_TCK")
#: The state of a listening socket (proc(5), net/tcp).
_LISTEN = "0A"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Usage(NamedTuple):
    """What a tree uses now. cpu_ms: of living members and of the children that they waited for."""

    cpu_ms: int
    rss_bytes: int
    tasks: int


def free_descriptors() -> int:
    """How many descriptors this process may still open; 0 if none is left for finding out.

    The size of /proc/self/fd is their number since Linux 6.2; on older kernels they are counted.
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    try:
        used = os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd")) - 1
    except OSError:
        return 0
    return max(0, most - used)


def children(os_pid: int) -> list[int]:
    """The living and zombie children of a process; empty when it is gone (proc(5), task/TID/children)."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{os_pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{os_pid}/task/{task}/children", "rb") as file:
                found.extend(map(int, file.read().split()))
    return found


def descendants(roots: Iterable[int]) -> list[int]:
    """The roots and all below them, parents first."""
    found = list(roots)
    for os_pid in found:
        found.extend(children(os_pid))
    return found


def usage(*roots: int) -> Usage | None:
    """What these processes and all below them use; None when they are gone."""
    rows = [row for each in descendants(roots) if (row := _stat(each)) is not None]
    if not rows:
        return None
    return Usage(
        sum(row.cpu_ms for row in rows), sum(row.rss_bytes for row in rows), sum(row.tasks for row in rows)
    )


def rss_bytes(os_pid: int) -> int:
    """Memory that one process has mapped and that is resident; 0 when it is gone."""
    row = _stat(os_pid)
    return 0 if row is None else row.rss_bytes


def _stat(os_pid: int) -> Usage | None:
    try:
        with open(f"/proc/{os_pid}/stat", "rb") as file:
            # Field 2, the name, stands in parentheses and may contain anything: fields are counted after it.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    ticks = sum(int(field) for field in fields[11:15])
    return Usage(ticks * _TICK_MS, int(fields[21]) * _PAGE_BYTES, int(fields[17]))


def listens_on(os_pid: int, port: int) -> str:
    """The address on which a TCP port listens in the process's network namespace, or "" (proc(5),
    PID/net/tcp: addresses as 32-bit words in the machine's byte order)."""
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        with contextlib.suppress(OSError), open(f"/proc/{os_pid}/net/{name}", encoding="ascii") as file:
            for line in file.readlines()[1:]:
                fields = line.split()
                address, _, number = fields[1].partition(":")
                if fields[3] == _LISTEN and int(number, 16) == port:
                    words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
                    return socket.inet_ntop(
                        family, b"".join(word.to_bytes(4, sys.byteorder) for word in words)
                    )
    return ""
