"""Reads everything that a PTY or pipe holds. Knows descriptors only."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import termios
import time

#: A PTY gives at most 4 KiB a read; after a read of less than this it is probably empty.
_PROBABLY_MORE_BYTES = 1024
#: How long one source is read while others wait: about a full burst of a terminal. Each read wakes the
#: writer, which on a busy machine runs before the next read; a burst took some 10 ms.
TURN_SECONDS = 0.0005


def fill(fd: int, first: memoryview, second: memoryview) -> tuple[int, bool | None]:
    """Read into both, one after the other, at least once: until they are full, the source is empty, or its
    turn is over.

    Returns the number of bytes, and whether there may be more: None at the end of the source.
    """
    size, border, done, readv = len(first) + len(second), len(first), 0, os.readv
    until = time.monotonic() + TURN_SECONDS
    while done < size:
        try:
            count = readv(fd, (first[done:], second) if done < border else (second[done - border :],))
        except BlockingIOError:
            return done, False
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return done, None
        if not count:
            return done, None
        done += count
        if count < _PROBABLY_MORE_BYTES:
            return done, False
        if time.monotonic() >= until:
            break
    return done, True


def readable_bytes(fd: int) -> int:
    """Bytes in a pipe or PTY (ioctl_tty(2), FIONREAD)."""
    try:
        return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)
    except OSError:
        return 0
