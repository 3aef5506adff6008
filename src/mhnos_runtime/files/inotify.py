"""The kernel's own news of directories (inotify(7)). Knows descriptors, watch numbers and events; no path and
no rule.

A watch is put on a directory that is held open, so that no name can lead it elsewhere.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from mhnos_runtime.files.confine import by_fd

MODIFY = 0x0000_0002
ATTRIB = 0x0000_0004
CLOSE_WRITE = 0x0000_0008
MOVED_FROM = 0x0000_0040
MOVED_TO = 0x0000_0080
CREATE = 0x0000_0100
DELETE = 0x0000_0200
DELETE_SELF = 0x0000_0400
MOVE_SELF = 0x0000_0800
UNMOUNT = 0x0000_2000
OVERFLOW = 0x0000_4000
IGNORED = 0x0000_8000
ONLY_DIRECTORY = 0x0100_0000
EXCLUDE_UNLINKED = 0x0400_0000
#: With what the directory's watch, if there is one, tells already.
MORE = 0x2000_0000
IS_DIRECTORY = 0x4000_0000

#: What becomes of names in a directory. Not that something is opened or read: a look causes no event.
NAMES = MODIFY | ATTRIB | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE
#: What becomes of a directory itself.
ITSELF = DELETE_SELF | MOVE_SELF

#: One read: some 2,000 events of files with short names.
READ_BYTES = 64 * 1024

_HEAD = struct.Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)


class Event(NamedTuple):
    """watch: its number, -1 with OVERFLOW. name: in the directory, b"" for the directory itself."""

    watch: int
    mask: int
    name: bytes


class Inotify:
    """One queue of events, and its watches. Not for several threads at once. Methods raise OSError."""

    def __init__(self) -> None:
        """EMFILE: the user's fs.inotify.max_user_instances, or the process's descriptors, are used up."""
        self._fd: int = _checked(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def add(self, directory: int, mask: int) -> int:
        """Watch a directory that is held open; returns the watch's number, the same one where this directory
        has a watch. ENOSPC: fs.inotify.max_user_watches are used up. EACCES: it may not be read."""
        path = os.fsencode(by_fd(directory))
        return _checked(_libc.inotify_add_watch(self._fd, path, mask | ONLY_DIRECTORY | EXCLUDE_UNLINKED))

    def remove(self, watch: int) -> None:
        """EINVAL: the kernel has removed it already."""
        _checked(_libc.inotify_rm_watch(self._fd, watch))

    def read(self) -> list[Event]:
        """Some of the events that wait; none where there are none."""
        try:
            return list(_parsed(os.read(self._fd, READ_BYTES)))
        except BlockingIOError:
            return []


def _parsed(data: bytes) -> Iterator[Event]:
    at = 0
    while at < len(data):
        watch, mask, _cookie, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size + length
        yield Event(watch, mask, data[at - length : at].rstrip(b"\0"))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
