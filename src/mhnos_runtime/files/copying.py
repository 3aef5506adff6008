"""Copies of files and trees, in steps: with permission bits and times, links as they are, blocks shared where
the file system can.

Knows directories that are held open; no workspace. Must follow no link.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field

from mhnos_runtime.errors import LimitReached, MhnosError
from mhnos_runtime.files.confine import by_fd
from mhnos_runtime.files.descent import Descent, scan
from mhnos_runtime.files.paths import PARTIAL_PREFIX, explain
from mhnos_runtime.files.space import Space
from mhnos_runtime.files.steps import Steps

CHUNK_BYTES = 4 << 20
"""Copied in one step: some ms."""

MAX_SKIPPED = 100
"""What is left out and named; all is counted."""

ENTRY_BYTES = 4096
"""What a file or directory takes of the disk beside its content."""

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: File systems that cannot copy by themselves, or not from one to another.
_NO_RANGE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)

Owner = tuple[int, int]


@dataclass(slots=True)
class Copied:
    """copied: files, links and directories. bytes: of files. skipped: (path, why), up to MAX_SKIPPED."""

    copied: int = 0
    bytes: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    skipped_count: int = 0

    def skip(self, path: str, why: str) -> None:
        self.skipped_count += 1
        if len(self.skipped) < MAX_SKIPPED:
            self.skipped.append((path, why))


class Copy:
    """One copy. min_free: bytes of the disk to leave free. owner: of all that is made, where root makes it;
    None: that of each original. whole: what cannot be read is an error, and not left out. made: told which
    file or directory the copy is, before there is anything in it."""

    def __init__(
        self,
        min_free: int,
        owner: Owner | None,
        *,
        whole: bool = False,
        made: Callable[[os.stat_result], None] = lambda _: None,
    ) -> None:
        self.done = Copied()
        self._tell: Callable[[os.stat_result], None] | None = made
        self._space = Space(min_free)
        self._owner, self._whole = owner, whole
        self._as_root = os.geteuid() == 0

    def steps(self, parent: int, name: bytes, path: str, to_parent: int, to_name: bytes) -> Steps[None]:
        """Copy what stands under `name` to `to_name`, where nothing may stand. path: of the original, for
        messages. Raises OSError and MhnosError; what is made by then stays, for the caller to remove."""
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            yield from self._leaf(parent, name, path, to_parent, to_name)
            return
        with Descent(parent, name, path) as here:
            os.mkdir(to_name, 0o700, dir_fd=to_parent)
            with Descent(to_parent, to_name, path) as there:
                self._tell_made(os.fstat(there.fd))
                yield from self._tree(here, there)

    def _tree(self, here: Descent, there: Descent) -> Steps[None]:
        yield from self._directory(here, there)
        while True:
            below = here.next()
            if below:
                yield from self._down(here, there, below)
                continue
            made, status = os.dup(there.fd), os.fstat(here.fd)
            try:
                if there.depth > 1:
                    here.up()
                    there.up()
                    done = False
                else:
                    done = True
                self._finish(made, status)
            finally:
                os.close(made)
            self.done.copied += 1
            yield
            if done:
                return

    def _down(self, here: Descent, there: Descent, name: bytes) -> Steps[None]:
        try:
            here.down(name)
        except (OSError, MhnosError) as error:
            self._leave_out(here.path(name), error)
            yield
            return
        self._space.look(there.fd, ENTRY_BYTES)
        os.mkdir(name, 0o700, dir_fd=there.fd)
        there.down(name)
        yield from self._directory(here, there)

    def _directory(self, here: Descent, there: Descent) -> Steps[None]:
        """What is in a directory, except directories, which wait."""
        for entry in scan(here.fd):
            name = os.fsencode(entry.name)
            if name.startswith(PARTIAL_PREFIX.encode()):
                continue
            if entry.is_dir(follow_symlinks=False):
                here.wait(name)
            else:
                yield from self._leaf(here.fd, name, here.path(name), there.fd, name)
            yield

    def _leaf(self, parent: int, name: bytes, path: str, to_parent: int, to_name: bytes) -> Steps[None]:
        self._space.look(to_parent, ENTRY_BYTES)
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                target = os.readlink(name, dir_fd=parent)
            elif stat.S_ISREG(status.st_mode):
                source = os.open(name, _READ, dir_fd=parent)
            else:
                self.done.skip(path, "neither file, directory nor link")
                return
        except OSError as error:
            self._leave_out(path, error)
            return
        if stat.S_ISLNK(status.st_mode):
            self._link(target, status, to_parent, to_name)
        else:
            try:
                yield from self._file(source, path, to_parent, to_name)
            finally:
                os.close(source)
        self.done.copied += 1

    def _tell_made(self, status: os.stat_result) -> None:
        """Of the first thing that is made, which is the top."""
        tell, self._tell = self._tell, None
        if tell is not None:
            tell(status)

    def _leave_out(self, path: str, error: OSError | MhnosError) -> None:
        explained = error if isinstance(error, MhnosError) else explain(error, path)
        if self._whole or isinstance(explained, LimitReached):
            raise explained
        self.done.skip(path, explained.message)

    def _link(self, target: bytes, status: os.stat_result, parent: int, name: bytes) -> None:
        os.symlink(target, name, dir_fd=parent)
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            made = os.fstat(fd)
            self._tell_made(made)
            if stat.S_ISLNK(made.st_mode):
                if self._as_root:
                    os.chown(by_fd(fd), *self._owner_of(status))
                times = (status.st_atime_ns, status.st_mtime_ns)
                os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(fd)

    def _file(self, source: int, path: str, parent: int, name: bytes) -> Steps[None]:
        status = os.fstat(source)
        if not stat.S_ISREG(status.st_mode):
            self.done.skip(path, "neither file, directory nor link")
            return
        made = os.open(name, _NEW, 0o600, dir_fd=parent)
        try:
            self._tell_made(os.fstat(made))
            yield from self._content(source, made)
            self._finish(made, status)
        finally:
            os.close(made)

    def _content(self, source: int, made: int) -> Steps[None]:
        """Holes stay holes."""
        position, end = 0, os.fstat(source).st_size
        while position < end:
            try:
                position = os.lseek(source, position, os.SEEK_DATA)
                hole = os.lseek(source, position, os.SEEK_HOLE)
            except OSError as error:
                if error.errno != errno.ENXIO:  # no more data
                    raise
                break
            while position < min(hole, end):
                length = min(CHUNK_BYTES, min(hole, end) - position)
                self._space.look(made, length)
                count = _copy(source, made, length, position)
                if not count:
                    end = position  # it has become shorter
                    break
                position += count
                self.done.bytes += count
                yield
        os.ftruncate(made, end)

    def _finish(self, made: int, status: os.stat_result) -> None:
        """Owner first: to change it takes bits away."""
        if self._as_root:
            os.fchown(made, *self._owner_of(status))
        kept = 0o777 if self._owner is not None else 0o7777
        os.fchmod(made, stat.S_IMODE(status.st_mode) & kept)
        os.utime(made, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _owner_of(self, status: os.stat_result) -> Owner:
        return (status.st_uid, status.st_gid) if self._owner is None else self._owner


def _copy(source: int, made: int, length: int, position: int) -> int:
    """Bytes that were copied; 0 at the end of the file."""
    try:
        return os.copy_file_range(source, made, length, position, position)
    except OSError as error:
        if error.errno not in _NO_RANGE:
            raise
    return os.pwrite(made, os.pread(source, min(length, 1 << 20), position), position)
