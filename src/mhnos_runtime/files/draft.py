"""A new file beside its target until it is whole: no reader sees half of it, and what stands in the way stays
as it was until then. Knows one file; not where its content comes from."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import NamedTuple

from mhnos_runtime.errors import Conflict, NotFound
from mhnos_runtime.files.confine import (
    Resolved,
    Workspace,
    by_fd,
    reopen,
    require_regular,
)
from mhnos_runtime.files.create import create_exclusive, create_unnamed
from mhnos_runtime.files.partials import Partials
from mhnos_runtime.files.paths import PARTIAL_PREFIX, require_shown, shown
from mhnos_runtime.files.space import Space, require_space
from mhnos_runtime.files.version import settled, version_of

#: What open(2) fails with where a file system knows no files without a name.
_NO_UNNAMED = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOSYS)

#: Held from the last look at a path to the rename, so that of two clients with the same condition one finds
#: it changed. No process is held up by it, so one may still come between the two.
_placing = threading.Lock()


SYNC_BYTES = 32 << 20
"""Written between two calls that make it durable: one for gigabytes would keep a thread for many seconds."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What must stand at a path for something to be done to it (RFC 9110, 13.1). versions: one of these;
    exists: anything; absent: nothing. Without any of them there is no condition."""

    versions: frozenset[str] | None = None
    exists: bool = False
    absent: bool = False

    def check(self, status: os.stat_result | None, path: str) -> None:
        """status: of what stands there, None for nothing. Raises Conflict (changed, already-exists)."""
        if self.absent and status is not None:
            raise Conflict(
                f"There is one already: {shown(path)}", code="already-exists", hint="choose another name"
            )
        wanted = self.exists or self.versions is not None
        if wanted and status is None:
            raise Conflict(f"It is not there any more: {shown(path)}", code="changed", hint=_LOOK)
        if self.versions is not None and status is not None and version_of(status) not in self.versions:
            raise Conflict(f"It has changed meanwhile: {shown(path)}", code="changed", hint=_LOOK)


#: Whatever stands there.
ANYTHING = Condition()
_LOOK = "read it again, then decide"
_NO_NOTE = Partials(None).begin((), b"")


class Written(NamedTuple):
    """What a draft has become. created: nothing stood there before."""

    status: os.stat_result
    created: bool

    @property
    def version(self) -> str:
        return version_of(self.status)


class Kept(NamedTuple):
    """Where a draft is that outlives its writer: its name beside its target, and which file that is."""

    name: str
    device: int
    inode: int


class Draft:
    """Holds at most three descriptors. Methods may raise OSError and MhnosError; call `drop` then.

    It has no name until the end, so that nothing is left of it when the server is killed; on file systems
    that cannot do that (O_TMPFILE, open(2)) it has one with PARTIAL_PREFIX, as one that is to be kept has.
    While it has one, and is not kept, that is noted for the next server.
    The target keeps its permission bits and, if allowed, its owner. A link that leads inside the workspace
    stays, and its target is replaced; other hard links of that keep the old content.
    """

    def __init__(
        self,
        workspace: Workspace,
        path: str,
        condition: Condition = ANYTHING,
        mode: int | None = None,
        *,
        again: Kept | None = None,
    ) -> None:
        """mode: permission bits; None: those of what is replaced, else 0644. The condition is checked now,
        so that nothing is sent in vain, and again at the end. again: go on with one that was kept, at its
        end; raises NotFound (gone) where it is not there, or is another file."""
        self._fd, self._name = -1, b""
        self._path, self._condition = path, condition
        self._min_free, self._space = workspace.min_free, Space(workspace.min_free)
        self._unsynced = 0
        self._partials, self._note = workspace.partials, _NO_NOTE
        with ExitStack() as stack:
            self._place = stack.enter_context(workspace.resolve(path, make_parents=again is None))
            require_shown(self._place.name)
            self._old = _writable(self._place, path) if self._place.fd >= 0 else None
            usual = stat.S_IMODE(self._old.st_mode) & 0o777 if self._old else 0o644
            self._mode = usual if mode is None else mode & 0o777
            if again is not None:
                self._name = again.name.encode()
                self._fd = _open_kept(again, self._place.parent_fd, path)
            else:
                condition.check(self._old, path)
                self._begin()
            self._held = stack.pop_all()

    @property
    def status(self) -> os.stat_result:
        return os.fstat(self._fd)

    def require_space(self, coming: int) -> None:
        """Raises LimitReached (disk-full) where so many bytes are too many, before any is sent in vain."""
        require_space(self._fd, self._min_free, coming)

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Raises LimitReached (disk-full) where the disk has less free space than is to be left."""
        self._space.look(self._fd, len(chunk))
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def write_durably(self, chunk: bytes | bytearray | memoryview) -> None:
        """As `write`, for what is to be durable at its end: most of it is by then."""
        self.write(chunk)
        self._unsynced += len(chunk)
        if self._unsynced >= SYNC_BYTES:
            self.sync()

    def sync(self) -> None:
        """Make what was written durable."""
        os.fdatasync(self._fd)
        self._unsynced = 0

    def truncate(self, size: int) -> None:
        """Forget what was written behind the first `size` bytes."""
        os.ftruncate(self._fd, size)
        os.lseek(self._fd, size, os.SEEK_SET)

    def kept(self) -> Kept:
        """Where it will be once it is kept, so that this can be noted before."""
        status = os.fstat(self._fd)
        return Kept(partial_name().decode(), status.st_dev, status.st_ino)

    def keep(self, kept: Kept) -> None:
        """Let it outlive this process; afterwards `close` leaves it where it is."""
        name, parent = kept.name.encode(), self._place.parent_fd
        if self._name:
            # Another name than the one that was noted, which the next server may still find.
            os.rename(self._name, name, src_dir_fd=parent, dst_dir_fd=parent)
        else:
            _link(self._fd, name, parent)
        self._name = name
        self._note.end()
        sync_folder(parent)

    def commit(self, mtime_ns: int | None = None, *, durable: bool = False) -> Written:
        """Put it in the place of its target. durable: on the disk by then, also through a loss of power.
        Raises Conflict where the condition does not hold any more."""
        # By descriptor throughout: a process may have put something else under the name.
        if self._old:
            _keep_owner(self._fd, self._old)
        os.fchmod(self._fd, self._mode)
        if mtime_ns is not None:
            os.utime(self._fd, ns=(mtime_ns, mtime_ns))
        if durable:
            os.fsync(self._fd)
        parent, look = self._place.parent_fd, os.open(by_fd(self._fd), os.O_PATH | os.O_CLOEXEC)
        try:
            self._close()
            with _placing:
                created = self._take_place(look)
            self._note.end()
            if durable:
                sync_folder(parent)
            written = Written(settled(lambda: os.fstat(look)), created)
        finally:
            os.close(look)
        self._held.close()
        return written

    def close(self) -> None:
        """Leave one that is kept as it is."""
        with self._held, suppress(OSError):
            self._close()

    def drop(self) -> None:
        with self._held:
            with suppress(OSError):
                if self._name:
                    os.unlink(self._name, dir_fd=self._place.parent_fd)
                self._note.end()
            with suppress(OSError):
                self._close()

    def _take_place(self, look: int) -> bool:
        """Whether nothing stood there. look: an open descriptor of it."""
        name, parent = self._place.name, self._place.parent_fd
        if self._name and self._condition.absent:
            link_into_place(self._name, name, parent, self._path)
            return True
        now = stat_at(name, parent)
        self._condition.check(now, self._path)
        if not self._name:
            if now is None and self._take_free_name(look):
                return True
            partial = self._noted()
            self._note.made(os.fstat(look))
            _link(look, partial, parent)
            self._name = partial
        os.rename(self._name, name, src_dir_fd=parent, dst_dir_fd=parent)
        return now is None

    def _take_free_name(self, look: int) -> bool:
        """False where the name was taken meanwhile. As one step, so that of two writers one finds it so."""
        name, parent = self._place.name, self._place.parent_fd
        try:
            _link(look, name, parent)
        except FileExistsError:
            if self._condition.absent:
                self._condition.check(os.stat(name, dir_fd=parent, follow_symlinks=False), self._path)
            return False
        return True

    def _begin(self) -> None:
        """A new file in the folder of the target."""
        parent = self._place.parent_fd
        try:
            self._fd = create_unnamed(os.O_WRONLY, 0o600, parent)
        except OSError as error:
            if error.errno not in _NO_UNNAMED:
                raise
            name = self._noted()
            try:
                self._fd, self._name = create_exclusive(name, os.O_WRONLY, 0o600, parent), name
            except OSError:
                self._note.end()
                raise
            self._note.made(self.status)

    def _noted(self) -> bytes:
        """A partial name, which is noted."""
        name = partial_name()
        self._note = self._partials.begin(self._place.place[:-1], name)
        return name

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)  # Network file systems report a full disk only here.


def partial_name() -> bytes:
    """For a file that is being written; nothing has it yet."""
    return PARTIAL_PREFIX.encode() + secrets.token_hex(16).encode()


def _link(fd: int, name: bytes, parent: int) -> None:
    """Give an open file a name, which must be free. Raises FileExistsError."""
    os.link(by_fd(fd), name, dst_dir_fd=parent, follow_symlinks=True)


def _look_at_kept(kept: Kept, parent: int, path: str) -> int:
    """A descriptor, O_PATH, of exactly this file: a process may have put anything under its name."""
    try:
        look = os.open(kept.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except (FileNotFoundError, NotADirectoryError):
        raise gone(path) from None
    status = os.fstat(look)
    if not stat.S_ISREG(status.st_mode) or (status.st_dev, status.st_ino) != kept[1:]:
        os.close(look)
        raise gone(path)
    return look


def _open_kept(kept: Kept, parent: int, path: str) -> int:
    look = _look_at_kept(kept, parent, path)
    try:
        return os.open(by_fd(look), os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(look)


def look_at_kept(workspace: Workspace, path: str, kept: Kept) -> os.stat_result:
    """Of a kept draft for this path. Raises NotFound (gone)."""
    with workspace.resolve(path) as place:
        look = _look_at_kept(kept, place.parent_fd, path)
        try:
            return os.fstat(look)
        finally:
            os.close(look)


def discard_kept(workspace: Workspace, path: str, kept: Kept) -> None:
    """Remove a kept draft, whatever its target is by now. Raises NotFound (gone)."""
    with workspace.resolve(path) as place:
        os.close(_look_at_kept(kept, place.parent_fd, path))
        os.unlink(kept.name, dir_fd=place.parent_fd)


def gone(path: str) -> NotFound:
    """The error for a kept draft that is not there."""
    return NotFound(
        f"What was written so far is not there any more: {shown(path)}", code="gone", hint="begin again"
    )


def link_into_place(draft: bytes, name: bytes, parent: int, path: str) -> None:
    """Give a whole file its name, which must be free: as one step, so that of two writers one fails. Raises
    Conflict (already-exists)."""
    try:
        os.link(draft, name, src_dir_fd=parent, dst_dir_fd=parent, follow_symlinks=False)
    except FileExistsError:
        there = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not os.path.samestat(there, os.stat(draft, dir_fd=parent, follow_symlinks=False)):
            Condition(absent=True).check(there, path)
        # A server was killed between the two steps.
        os.unlink(draft, dir_fd=parent)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        # A file system without hard links, such as vfat.
        Condition(absent=True).check(stat_at(name, parent), path)
        os.rename(draft, name, src_dir_fd=parent, dst_dir_fd=parent)
    else:
        os.unlink(draft, dir_fd=parent)


def stat_at(name: bytes, parent: int) -> os.stat_result | None:
    """Of what has this name in a folder, itself if it is a link; None for nothing."""
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def sync_folder(fd: int) -> None:
    """Make the names in a folder, which is held open, durable."""
    folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _writable(resolved: Resolved, path: str) -> os.stat_result:
    """The existing file, if it may be written: a rename alone would replace a read-only file."""
    require_regular(resolved, path)
    try:
        os.close(reopen(resolved, os.O_WRONLY))
    except OSError as error:
        if error.errno != errno.ETXTBSY:  # A running program's file can be replaced, but not rewritten.
            raise
    return os.fstat(resolved.fd)


def _keep_owner(fd: int, old: os.stat_result) -> None:
    now = os.fstat(fd)
    if (now.st_uid, now.st_gid) != (old.st_uid, old.st_gid):
        with suppress(PermissionError):  # Only root may; the content matters more than the owner.
            os.fchown(fd, old.st_uid, old.st_gid)
