"""Down a tree and up again, by descriptors, however deep; and the removal of one. Follows no link, and stays
on one file system.

Knows directories that are held open; no workspace, and not why.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple, Self

from mhnos_runtime.errors import InvalidRequest, LimitReached, Refused, Unavailable
from mhnos_runtime.files.confine import by_fd
from mhnos_runtime.files.entries import text_of
from mhnos_runtime.files.paths import shown
from mhnos_runtime.files.steps import Steps

MAX_NAME_BYTES_WAITING = 16 << 20
"""Names of directories that a walk has seen and not entered, on all levels: a million of 16 bytes."""

MAX_AGAIN = 1000
"""Directories that are emptied again: file systems may pass over names while others are removed, and programs
may make new ones."""

_FLAGS = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class _Level(NamedTuple):
    """A directory on the way down: its name, and which it is."""

    name: bytes
    identity: tuple[int, int]
    waiting: bytearray


class Descent:
    """One directory of a tree at a time, `fd`; each has names that wait to be entered.

    The way up is the kernel's `..`, and counts only if it leads to the very directory that was come from: one
    that a program moves elsewhere meanwhile ends the walk. path: of the top, for messages. force: give
    oneself the permissions that are missing. Methods raise OSError and MhnosError.
    """

    def __init__(self, parent: int, name: bytes, path: str, *, force: bool = False) -> None:
        self._path, self._force = path, force
        self._levels: list[_Level] = []
        self._waiting_bytes = 0
        self.fd = self._open(name, parent)
        self._levels.append(_Level(name, _identity(os.fstat(self.fd)), bytearray()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    @property
    def depth(self) -> int:
        """1 at the top."""
        return len(self._levels)

    def path(self, name: bytes = b"") -> str:
        """Of the present directory, or of a name in it, for messages."""
        below = [level.name for level in self._levels[1:]] + ([name] if name else [])
        return text_of(b"/".join([os.fsencode(self._path), *below]))

    def wait(self, name: bytes) -> None:
        """Enter this directory later."""
        self._waiting_bytes += len(name) + 1
        if self._waiting_bytes > MAX_NAME_BYTES_WAITING:
            raise LimitReached(f"Too many directories: {shown(self._path)}", code="too-large")
        waiting = self._levels[-1].waiting
        waiting += name + b"\0"

    def next(self) -> bytes:
        """The name of one that waits here, or nothing."""
        waiting = self._levels[-1].waiting
        if not waiting:
            return b""
        start = waiting.rfind(b"\0", 0, -1) + 1
        name = bytes(waiting[start:-1])
        self._waiting_bytes -= len(name) + 1
        del waiting[start:]
        return name

    def down(self, name: bytes) -> None:
        child = self._open(name, self.fd)
        identity = _identity(os.fstat(child))
        if identity[0] != self._levels[0].identity[0]:
            os.close(child)
            raise Refused(
                f"Another file system is mounted here: {shown(self.path(name))}", hint="unmount it first"
            )
        self._levels.append(_Level(name, identity, bytearray()))
        self._hold(child)

    def up(self) -> bytes:
        """The name of the directory that was left."""
        above = os.open("..", os.O_RDONLY | _FLAGS, dir_fd=self.fd)
        if _identity(os.fstat(above)) != self._levels[-2].identity:
            os.close(above)
            raise moved(self.path())
        self._hold(above)
        return self._levels.pop().name

    def _hold(self, fd: int) -> None:
        old, self.fd = self.fd, fd
        os.close(old)

    def _open(self, name: bytes, parent: int) -> int:
        if not self._force:
            return os.open(name, os.O_RDONLY | _FLAGS, dir_fd=parent)
        look = os.open(name, os.O_PATH | _FLAGS, dir_fd=parent)
        try:
            mode = os.fstat(look).st_mode
            if mode & 0o700 != 0o700:
                os.chmod(by_fd(look), stat.S_IMODE(mode) | 0o700)
            return os.open(".", os.O_RDONLY | _FLAGS, dir_fd=look)
        finally:
            os.close(look)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def remove_tree(
    parent: int, name: bytes, path: str, *, expected: os.stat_result | None = None, force: bool = False
) -> Steps[None]:
    """Remove a file, or a directory with all that is in it; of links themselves only. path: for messages.
    expected: the directory that it must be.

    What a program puts into it meanwhile is removed too, or the directory stays and InvalidRequest
    (not-empty) says so. Raises OSError and MhnosError; what is removed by then is gone.
    """
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(name, dir_fd=parent)
        return
    with Descent(parent, name, path, force=force) as walk:
        if expected is not None and _identity(expected) != _identity(os.fstat(walk.fd)):
            raise moved(path)
        yield from _remove_below(walk, parent, name)


def _remove_below(walk: Descent, parent: int, name: bytes) -> Steps[None]:
    again = MAX_AGAIN
    yield from _empty(walk)
    while True:
        below = walk.next()
        if below:
            walk.down(below)
            yield from _empty(walk)
            continue
        top = walk.depth == 1
        left, place = (name, parent) if top else (walk.up(), walk.fd)
        yield
        if _remove_empty(left, place):
            if top:
                return
            continue
        again -= 1
        if again < 0:
            raise InvalidRequest(
                f"Another program keeps putting something into it: {shown(walk.path(left))}",
                code="not-empty",
            )
        if top:
            yield from _empty(walk)
        else:
            walk.wait(left)


def _empty(walk: Descent) -> Steps[None]:
    """Remove what is no directory; let the others wait."""
    for entry in scan(walk.fd):
        name = os.fsencode(entry.name)
        if entry.is_dir(follow_symlinks=False):
            walk.wait(name)
        else:
            os.unlink(name, dir_fd=walk.fd)
        yield


def _remove_empty(name: bytes, parent: int) -> bool:
    try:
        os.rmdir(name, dir_fd=parent)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def moved(path: str) -> Unavailable:
    """The error for something that is not any more what it was a moment ago."""
    return Unavailable(f"Another program has moved it meanwhile: {shown(path)}")


def scan(fd: int) -> Iterator[os.DirEntry[str]]:
    """What is in a directory, from its beginning. Raises OSError."""
    again = os.open(".", os.O_RDONLY | _FLAGS, dir_fd=fd)
    try:
        with os.scandir(again) as entries:
            yield from entries
    finally:
        os.close(again)
