"""The log file of a runtime in the background, kept bounded. Knows one file, and nothing of its lines."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from mhnos_runtime.supervisor.loop import Loop

#: In the state directory; `serve --detach` opens it as standard error of supervisor and server.
NAME = "runtime.log"
#: What was in it when it was last turned over.
OLD_NAME = f"{NAME}.1"
#: Weeks of ordinary lines.
MOST_BYTES = 4 << 20
#: Between two looks at its size. Lines have limits of their own, a few hundred a minute.
LOOK_SECONDS = 10.0
_CHUNK_BYTES = 1 << 20


class LogFile:
    """Keeps the file at MOST_BYTES or so while standard error goes to it; otherwise does nothing.

    It is copied and cut, not renamed: supervisor and server write through one open file, always to its end.
    """

    def __init__(self, loop: Loop, folder: Path, fd: int = 2) -> None:
        self._loop = loop
        self._folder = folder
        self._fd = fd

    def watch(self) -> None:
        """Look from time to time, if this is where lines go."""
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(self._fd), os.lstat(self._folder / NAME)):
                self._look()

    def _look(self) -> None:
        with contextlib.suppress(OSError):
            if os.fstat(self._fd).st_size > MOST_BYTES:
                self._turn_over()
        self._loop.after(LOOK_SECONDS, self._look)

    def _turn_over(self) -> None:
        """On a full disk the old lines are lost, and the file is cut all the same."""
        try:
            self._copy()
        finally:
            os.ftruncate(self._fd, 0)

    def _copy(self) -> None:
        """Until nothing is left to copy: a line that comes after that and before the cut is lost."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        source = os.open(self._folder / NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            target = os.open(self._folder / OLD_NAME, flags, 0o600)
            try:
                while os.sendfile(target, source, None, _CHUNK_BYTES):
                    pass
            finally:
                os.close(target)
        finally:
            os.close(source)
