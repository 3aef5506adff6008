"""Attempts to have more memory, or terminals, than the limit gives. Parts of attack.py; run inside a sandbox.

Each holds on to what it took for as long as it is told, which is longer than a watchdog takes to look.
"""

import ctypes
import mmap
import os
import time

from attack_tools import F, libc

CHUNK = bytes(1 << 22)
#: Of the limit: more than what any accounting is off by.
FACTOR = 1.5
MADV_DONTNEED = 4


def fill(*openers):
    """Write more than the limit into files of a size that is allowed, keep it, and let go."""
    taken = 0
    while taken < F["memory"] * FACTOR:
        for opener in openers:
            fd = opener()
            for _ in range(4):
                taken += os.write(fd, CHUNK)
    time.sleep(F["hold_seconds"])
    return "kept %d bytes" % taken


def nameless(folder):
    """A file of which nothing is left when this process is killed."""
    path = "%s/attempt-%d-%d" % (folder, os.getpid(), time.monotonic_ns())
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.unlink(path)
    return fd


def fill_shared_memory():
    return fill(lambda: nameless("/dev/shm"))


def fill_temporary_folder():
    return fill(lambda: nameless("/tmp"))


def fill_both_halfway():
    """Each alone is below the limit."""
    return fill(lambda: nameless("/tmp"), lambda: nameless("/dev/shm"))


def fill_device_folder():
    return fill(lambda: nameless("/dev"))


def fill_memory_file():
    return fill(lambda: os.memfd_create("attempt"))


def fill_memory_files_of_child():
    if os.fork() == 0:
        fill_memory_file()
        os._exit(7)
    _pid, status = os.wait()
    return "kept them" if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 7 else ""


def hide_shared_mapping():
    """The pages stay in memory, and this process has none of them mapped any more (madvise(2))."""
    size = int(F["memory"] * FACTOR)
    memory = mmap.mmap(-1, size)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for start in range(0, size, len(CHUNK)):
        memory[start : start + len(CHUNK)] = CHUNK
        libc.madvise(ctypes.c_void_p(address + start), ctypes.c_size_t(len(CHUNK)), MADV_DONTNEED)
    time.sleep(F["hold_seconds"])
    return "kept %d bytes" % size


def leave_shared_memory():
    """Memory that is nobody's when this process has ended: a file on the machine's own /dev/shm."""
    path = "/dev/shm/attempt-%d" % os.getpid()
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(fd, CHUNK)
        return "left it" if os.fstat(fd).st_dev == F["shm_dev"] else ""
    finally:
        os.unlink(path)


def exhaust_terminals():
    """More than 64 at a time."""
    kept = []
    while len(kept) <= 64:
        kept.append(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY))
    return "opened %d" % len(kept)
