"""One file that is read from its start to its end as it was when it was opened, or not to its end. Knows one
file; not who reads it."""

from __future__ import annotations

import io
import os

from mhnos_runtime.errors import Conflict, Unavailable
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.entries import Entry, entry_of
from mhnos_runtime.files.paths import explained, normalise, shown
from mhnos_runtime.files.version import settled, version_of

WHOLE_BYTES = 1 << 20
"""Up to this size a file is read at once, and again where it changed meanwhile."""

_TRIES = 5


class Content:
    """entry: what was opened. Holds one descriptor until it is closed. Methods raise MhnosError.

    Of a file that grows meanwhile, as a log does, there is what it had at the start.
    """

    def __init__(self, workspace: Workspace, path: str) -> None:
        """Blocks for some ms where it has just changed."""
        # A closed FileIO raises; a bare number may be another file's by now.
        self._file = io.FileIO(workspace.open_file(path, os.O_RDONLY))
        self._path = path
        try:
            self._status = settled(self._look)
            self._whole = self._read_whole() if self._status.st_size <= WHOLE_BYTES else None
        except BaseException:
            self.close()
            raise
        self.entry: Entry = entry_of(self._status, normalise(path))

    def close(self) -> None:
        self._file.close()

    def read(self, start: int, size: int) -> bytes:
        """So many bytes of it. Raises Conflict (changed) where the file is not what it was: what was read
        before is a part of what it was."""
        if self._whole is not None:
            return self._whole[start : start + size]
        data = self._read(start, size)
        if len(data) != size or not self._holds(self._look()):
            raise Conflict(f"It has changed while it was read: {shown(self._path)}", hint="read it again")
        return data

    def _read_whole(self) -> bytes | None:
        """None where it is too large by now."""
        for _ in range(_TRIES):
            then = self._status
            data, now = self._read(0, then.st_size), self._look()
            if version_of(now) == version_of(then):
                return data
            self._status = settled(self._look)
            if self._status.st_size > WHOLE_BYTES:
                return None
        if len(data) == then.st_size < now.st_size:
            self._status = then
            return data
        raise Unavailable(f"Another program keeps changing it: {shown(self._path)}")

    def _holds(self, now: os.stat_result) -> bool:
        """Its name, mode and owner may change; and it may grow, which shows nothing of what it had."""
        then = self._status
        return now.st_size > then.st_size or (now.st_size, now.st_mtime_ns) == (
            then.st_size,
            then.st_mtime_ns,
        )

    def _read(self, start: int, size: int) -> bytes:
        with explained(self._path):
            return os.pread(self._file.fileno(), size, start)

    def _look(self) -> os.stat_result:
        with explained(self._path):
            return os.fstat(self._file.fileno())
