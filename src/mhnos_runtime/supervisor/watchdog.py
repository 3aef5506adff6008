"""Limits on a tree where the kernel has no control group for it: looks at /proc from time to time."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

from mhnos_runtime import proc
from mhnos_runtime.launch import Limits

#: Between two looks. A process can go over its limit for so long; looking costs some 20 µs a process.
INTERVAL_SECONDS = 0.2
#: Looks from one search for memory files to the next, which costs some 3 µs a descriptor.
LOOKS_A_SEARCH = 5
#: Descriptors of a tree that a search takes: 3 ms.
_SEARCHED = 1000


class Look(NamedTuple):
    """memory_bytes: of the tree, what several processes share counted once where it matters. reason: of
    its end when a limit is exceeded, as in an exit record, or ""."""

    memory_bytes: int
    reason: str


class _Share(NamedTuple):
    """Memory of one process, bytes, with what is shared divided among those who share it. shared: of this,
    what is in memory files and other shared memory; own: all the rest."""

    own: int
    shared: int


def look(os_pid: int, limits: Limits, unmapped_bytes: int = 0) -> Look:
    """What the tree uses against what it may. unmapped_bytes: of files in memory, see `used` and `searched`.

    The quick figure counts shared pages twice, so one that is too high is checked by the exact one before it
    counts.
    """
    usage = proc.usage(os_pid)
    if usage is None:
        return Look(0, "")
    memory = usage.rss_bytes + unmapped_bytes
    if limits.memory_bytes and memory > limits.memory_bytes:
        shares = [_share(each) for each in proc.descendants([os_pid])]
        # A file in memory may be mapped too.
        shared = max(sum(share.shared for share in shares), unmapped_bytes)
        memory = sum(share.own for share in shares) + shared
        if memory > limits.memory_bytes:
            return Look(memory, "memory")
    if limits.tasks and usage.tasks > limits.tasks:
        return Look(memory, "killed")
    return Look(memory, "")


def used(folders: Iterable[str]) -> int:
    """Bytes of all that lies in these file systems, which are memory's."""
    total = 0
    for folder in folders:
        with contextlib.suppress(OSError):
            found = os.statvfs(folder)
            total += (found.f_blocks - found.f_bfree) * found.f_frsize
    return total


def searched(os_pid: int) -> int:
    """Bytes of the memory files (memfd_create(2)) that the tree has descriptors of, mapped or not.

    Only of the first so many descriptors, and of processes that can be looked into: for those that have a
    defect, which is what the watchdog is for.
    """
    sizes: dict[int, int] = {}
    left = _SEARCHED
    for each in proc.descendants([os_pid]):
        with contextlib.suppress(OSError), os.scandir(f"/proc/{each}/fd") as entries:
            for entry in islice(entries, left):
                left -= 1
                with contextlib.suppress(OSError):
                    sizes.update(_memory_file(each, entry.name))
    return sum(sizes.values())


def _memory_file(os_pid: int, fd: str) -> dict[int, int]:
    """{inode: bytes} of a descriptor that is one. What it is shows before its file is asked for anything: on
    a file system that a process serves itself, the answer could take for ever."""
    path = f"/proc/{os_pid}/fd/{fd}"
    if os.readlink(path).startswith("/memfd:") and _mount(f"/proc/{os_pid}/fdinfo/{fd}") == _memory_mount():
        status = os.stat(path)
        return {status.st_ino: status.st_blocks * 512}
    return {}


@functools.cache
def _memory_mount() -> bytes:
    """The mount that all memory files of a machine are on."""
    fd = os.memfd_create("own", os.MFD_CLOEXEC)
    try:
        return _mount(f"/proc/self/fdinfo/{fd}")
    finally:
        os.close(fd)


def _mount(fdinfo: str) -> bytes:
    with open(fdinfo, "rb") as file:
        return next((line for line in file if line.startswith(b"mnt_id:")), b"")


def _share(os_pid: int) -> _Share:
    """By smaps_rollup (proc(5)). A process that does not let itself be looked into (prctl(2),
    PR_SET_DUMPABLE) counts with all that it has mapped, shared or not."""
    try:
        with open(f"/proc/{os_pid}/smaps_rollup", "rb") as file:
            rows = dict(line.split(b":", 1) for line in file if b":" in line and line[:1].isalpha())
        whole, shared = (int(rows.get(name, b"0").split()[0]) * 1024 for name in (b"Pss", b"Pss_Shmem"))
        return _Share(whole - shared, shared)
    except (OSError, KeyError, ValueError):
        return _Share(proc.rss_bytes(os_pid), 0)
