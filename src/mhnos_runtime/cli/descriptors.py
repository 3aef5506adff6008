"""Descriptors 0 to 2 of this command, which may be shared with others. No event loop; knows no process."""

from __future__ import annotations

import os
import select

from mhnos_runtime.client.types import Stream

STDIN, STDOUT, STDERR = 0, 1, 2
FD_OF: dict[Stream, int] = {"stdout": STDOUT, "stderr": STDERR}


def terminals() -> list[Stream]:
    """The streams of this command that go to a terminal."""
    return [stream for stream, fd in FD_OF.items() if os.isatty(fd)]


def write_all(fd: int, data: bytes) -> None:
    """Every byte, also through a descriptor that somebody else has made non-blocking. Raises OSError."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            poller = select.poll()
            poller.register(fd, select.POLLOUT)
            poller.poll()
