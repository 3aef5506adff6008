"""Limits on trees that no control group enforces: measures /proc from time to time."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Collection, Iterable
from itertools import islice
from typing import NamedTuple

from mhnos_runtime import proc
from mhnos_runtime.launch import Limits

#: Between two looks: a process can exceed its limit for this long. A look costs some 20 µs a process.
INTERVAL_SECONDS = 0.2
#: Looks between two searches for memory files, which cost some 3 µs a descriptor.
LOOKS_A_SEARCH = 5
#: Descriptors of a tree that one search takes: 3 ms.
_SEARCHED = 1000


class Look(NamedTuple):
    """memory_bytes: of the trees; near the limit, shared memory is counted once. reason: for the exit record
    if a limit is exceeded, or ""."""

    memory_bytes: int
    reason: str


class _Share(NamedTuple):
    """Memory of one process, bytes, with shared memory divided among those who share it. shared: memory files
    and other shared memory in it; own: the rest."""

    own: int
    shared: int


def look(roots: Collection[int], limits: Limits, unmapped_bytes: int = 0) -> Look:
    """What the trees use together, against their limits. unmapped_bytes: of files in memory, see `used` and
    `searched`.

    The quick figure counts shared pages twice. If it is too high, the exact one decides.
    """
    usage = proc.usage(*roots)
    if usage is None:
        return Look(0, "")
    memory = usage.rss_bytes + unmapped_bytes
    if limits.memory_bytes and memory > limits.memory_bytes:
        shares = [_share(each) for each in proc.descendants(roots)]
        # A file in memory may be mapped too.
        shared = max(sum(share.shared for share in shares), unmapped_bytes)
        memory = sum(share.own for share in shares) + shared
        if memory > limits.memory_bytes:
            return Look(memory, "memory")
    if limits.tasks and usage.tasks > limits.tasks:
        return Look(memory, "killed")
    return Look(memory, "")


def used(folders: Iterable[str]) -> int:
    """Bytes in these file systems, which are in memory."""
    total = 0
    for folder in folders:
        with contextlib.suppress(OSError):
            found = os.statvfs(folder)
            total += (found.f_blocks - found.f_bfree) * found.f_frsize
    return total


def searched(roots: Collection[int]) -> int:
    """Bytes of the memory files (memfd_create(2)) that the trees have descriptors of, mapped or not.

    Only of the first _SEARCHED descriptors, and of processes that can be inspected: the watchdog is for
    programs with defects, not for hostile ones.
    """
    sizes: dict[int, int] = {}
    left = _SEARCHED
    for each in proc.descendants(roots):
        with contextlib.suppress(OSError), os.scandir(f"/proc/{each}/fd") as entries:
            for entry in islice(entries, left):
                left -= 1
                with contextlib.suppress(OSError):
                    sizes.update(_memory_file(each, entry.name))
    return sum(sizes.values())


def _memory_file(os_pid: int, fd: str) -> dict[int, int]:
    """{inode: bytes} if the descriptor is a memory file. That is decided before the file is asked: on a file
    system that a process serves itself, an answer could take for ever."""
    path = f"/proc/{os_pid}/fd/{fd}"
    if os.readlink(path).startswith("/memfd:") and _mount(f"/proc/{os_pid}/fdinfo/{fd}") == _memory_mount():
        status = os.stat(path)
        return {status.st_ino: status.st_blocks * 512}
    return {}


@functools.cache
def _memory_mount() -> bytes:
    """The mount of all memory files of a machine."""
    fd = os.memfd_create("own", os.MFD_CLOEXEC)
    try:
        return _mount(f"/proc/self/fdinfo/{fd}")
    finally:
        os.close(fd)


def _mount(fdinfo: str) -> bytes:
    with open(fdinfo, "rb") as file:
        return next((line for line in file if line.startswith(b"mnt_id:")), b"")


def _share(os_pid: int) -> _Share:
    """By smaps_rollup (proc(5)). A process that forbids inspection (prctl(2), PR_SET_DUMPABLE) counts with
    everything that it has mapped, shared or not."""
    try:
        with open(f"/proc/{os_pid}/smaps_rollup", "rb") as file:
            rows = dict(line.split(b":", 1) for line in file if b":" in line and line[:1].isalpha())
        whole, shared = (int(rows.get(name, b"0").split()[0]) * 1024 for name in (b"Pss", b"Pss_Shmem"))
        return _Share(whole - shared, shared)
    except (OSError, KeyError, ValueError):
        return _Share(proc.rss_bytes(os_pid), 0)
