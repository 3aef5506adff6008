"""Everything below a directory, as members of an archive: by descriptors, one open listing at a time, with
bounded memory. Knows no format."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Literal, NamedTuple

from mhnos_runtime.errors import Unavailable
from mhnos_runtime.files.ignore import Ignore
from mhnos_runtime.files.paths import PARTIAL_PREFIX, explain, shown

SKIPPED_NAME = ".mhnos-skipped.txt"
"""The last member of an archive, if something was left out: lines "path: why"."""

WHOLE_BYTES = 1 << 20
"""Files up to this size are read at once: what stands in the archive is what there was at one moment."""

PIECE_BYTES = 1 << 18
"""Of a larger file, in one step."""

NAMED = 1000
"""What was left out, by name; all is counted."""

_OPEN_LEVELS = 32
"""Directories above the present one whose descriptors are kept. The others are opened again, from the top."""

_PENDING_BYTES = 16 << 20
"""Names of directories that are still to be entered: a million of some 16 bytes."""

_QUIET_ENTRIES = 256
"""Entries in one step that give no member."""

_LISTING = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a FIFO that has taken the place of a file is not waited for.
_READING = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
#: To leave out a file for these would look like one that is not there.
_ENDING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class Skipped:
    """What is left out of one archive, and why."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._count = 0

    def __bool__(self) -> bool:
        return self._count > 0

    def add(self, path: str, why: str) -> None:
        self._count += 1
        if len(self._lines) < NAMED:
            self._lines.append(f"{shown(path)}: {why}\n")

    def failed(self, path: str, error: OSError) -> None:
        """Raises LimitReached where it is the runtime that cannot go on."""
        if error.errno in _ENDING:
            raise explain(error, path) from error
        self.add(path, error.strerror or "cannot be read")

    def text(self) -> bytes:
        unnamed = self._count - len(self._lines)
        more = [f"and {unnamed} more\n"] if unnamed else []
        return "".join(self._lines + more).encode()


class Member(NamedTuple):
    """path: below the directory, bytes that are not UTF-8 as surrogates. mode: permission bits. size: bytes
    of a file, 0 of others. data: of a link its text; of a file its content, unless it is large: then `fd` is
    open until the next member is asked for, else -1."""

    path: str
    kind: Literal["file", "directory", "link"]
    mode: int
    mtime_ns: int
    size: int = 0
    data: bytes = b""
    fd: int = -1

    def pieces(self, skipped: Skipped) -> Iterator[bytes]:
        """The content of a large file: exactly `size` bytes. Raises Unavailable where it has become shorter:
        the archive cannot be whole any more. One that has grown, as a log does, is what it was at the
        start, as where it is read alone; one that has changed otherwise is told of."""
        position = 0
        while position < self.size:
            try:
                piece = os.pread(self.fd, min(PIECE_BYTES, self.size - position), position)
            except OSError as error:
                raise explain(error, self.path) from error
            if not piece:
                raise Unavailable(f"It became shorter while it was read: {shown(self.path)}")
            position += len(piece)
            yield piece
        now = os.fstat(self.fd)
        if now.st_size <= self.size and (now.st_size, now.st_mtime_ns) != (self.size, self.mtime_ns):
            skipped.add(self.path, "changed while it was read; what is here is of several moments")


def told(skipped: Skipped) -> Member | None:
    """The last member of an archive, None where nothing was left out."""
    if not skipped:
        return None
    text = skipped.text()
    return Member(SKIPPED_NAME, "file", 0o644, time.time_ns(), len(text), text)


def members(top: int, skipped: Skipped, exclude: Ignore | None = None) -> Iterator[Member | None]:
    """All that is below the directory `top`, a directory before what is in it; links as they are. None: a
    step that has found nothing. exclude: not what these rules name, from `top`. The caller closes `top`, at
    last. Raises LimitReached and Unavailable."""
    with closing(_Walk(top, skipped, exclude)) as walk:
        yield from walk.files()
        while True:
            found = walk.enter()
            if found is not None:
                yield found
                yield from walk.files()
            elif not walk.leave():
                return


class _Level:
    """One directory on the way. prefix: of the paths in it. pending: directories in it that are still to be
    entered, each after a NUL."""

    __slots__ = ("fd", "name", "pending", "prefix")

    def __init__(self, name: bytes, prefix: str, fd: int) -> None:
        self.name, self.prefix, self.fd = name, prefix, fd
        self.pending = bytearray()

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


class _Walk:
    """Depth first. Only names are kept, so that a directory with a million entries costs some MiB."""

    def __init__(self, top: int, skipped: Skipped, exclude: Ignore | None) -> None:
        self._exclude = exclude
        self._levels = [_Level(b"", "", top)]
        self._skipped = skipped
        self._pending_bytes = 0
        self._large = -1

    def close(self) -> None:
        self._end_large()
        for level in self._levels[1:]:
            level.close()

    def leave(self) -> bool:
        """Go up; False at the top."""
        if len(self._levels) == 1:
            return False
        self._levels.pop().close()
        return True

    def enter(self) -> Member | None:
        """Go down into the next directory of this one; None where there is none. One that cannot be entered
        is a member all the same, with nothing in it."""
        level = self._levels[-1]
        while level.pending:
            cut = level.pending.rindex(0)
            name = bytes(level.pending[cut + 1 :])
            del level.pending[cut:]
            self._pending_bytes -= len(name) + 1
            path = level.prefix + os.fsdecode(name)
            try:
                status = os.stat(name, dir_fd=self._opened(len(self._levels) - 1), follow_symlinks=False)
            except OSError as error:
                self._skipped.failed(path, error)
                continue
            if stat.S_ISDIR(status.st_mode):
                self._levels.append(_Level(name, f"{path}/", -1))
                return Member(path, "directory", status.st_mode & 0o777, status.st_mtime_ns)
            self._skipped.add(path, "became something else while it was read")
        return None

    def files(self) -> Iterator[Member | None]:
        """What is in this directory, apart from directories, which are noted."""
        level, quiet = self._levels[-1], 0
        try:
            with os.scandir(self._opened(len(self._levels) - 1)) as entries:
                for entry in entries:
                    member = self._member(level, entry)
                    if member is not None:
                        quiet = 0
                        yield member
                        if self._large >= 0:
                            self._end_large()
                        continue
                    quiet += 1
                    if quiet % _QUIET_ENTRIES == 0:
                        yield None
        except OSError as error:
            self._skipped.failed(level.prefix or "/", error)

    def _member(self, level: _Level, entry: os.DirEntry[str]) -> Member | None:
        name = entry.name
        path = level.prefix + name
        if name.startswith(PARTIAL_PREFIX) or path == SKIPPED_NAME:
            return None
        try:
            if self._exclude and self._exclude.says(path, entry.is_dir(follow_symlinks=False)):
                return None
            if entry.is_file(follow_symlinks=False):
                return self._file(level.fd, name, path)
            if entry.is_symlink():
                target = os.fsencode(os.readlink(name, dir_fd=level.fd))
                mtime_ns = entry.stat(follow_symlinks=False).st_mtime_ns
                return Member(path, "link", 0o777, mtime_ns, data=target)
            if entry.is_dir(follow_symlinks=False):
                self._note(level, os.fsencode(name), path)
            else:
                self._skipped.add(path, "neither a file nor a directory nor a link")
        except OSError as error:
            self._skipped.failed(path, error)
        return None

    def _file(self, folder: int, name: str, path: str) -> Member | None:
        fd = os.open(name, _READING, dir_fd=folder)
        try:
            status = os.fstat(fd)
            mode, size, mtime_ns = status.st_mode, status.st_size, status.st_mtime_ns
            if not stat.S_ISREG(mode):
                self._skipped.add(path, "became something else while it was read")
                return None
            if size <= WHOLE_BYTES:
                data = _read(fd, size)
                return Member(path, "file", mode & 0o777, mtime_ns, len(data), data)
            self._large, fd = fd, -1
            return Member(path, "file", mode & 0o777, mtime_ns, size, fd=self._large)
        finally:
            if fd >= 0:
                os.close(fd)

    def _end_large(self) -> None:
        fd, self._large = self._large, -1
        if fd >= 0:
            os.close(fd)

    def _note(self, level: _Level, name: bytes, path: str) -> None:
        self._pending_bytes += len(name) + 1
        if self._pending_bytes > _PENDING_BYTES:
            self._pending_bytes -= len(name) + 1
            self._skipped.add(path, "too many directories wait to be entered")
        else:
            level.pending += b"\0" + name

    def _opened(self, index: int) -> int:
        """The descriptor of a level. Opened below the nearest one above that is open; the top always is."""
        start = index
        while self._levels[start].fd < 0:
            start -= 1
        here = self._levels[start].fd
        for number in range(start + 1, index + 1):
            level = self._levels[number]
            level.fd = here = os.open(level.name, _LISTING, dir_fd=here)
            if number > _OPEN_LEVELS:
                self._levels[number - _OPEN_LEVELS].close()
        return here


def _read(fd: int, size: int) -> bytes:
    data = os.read(fd, size + 1)
    while len(data) < size and (more := os.read(fd, size - len(data))):
        data += more
    return data if len(data) <= size else data[:size]
