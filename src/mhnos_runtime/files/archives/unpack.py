"""The entries of an archive become files of the workspace, whatever the archive says. Knows entries, and no
format.

Nothing leads out of the directory that is unpacked into: each folder of an entry is resolved there, by
descriptors, and what an entry makes has its name in that folder, and is never opened through a link. Files
are written beside their targets and renamed onto them. An archive is not forced to the disk file by file:
after a loss of power it is to be sent again, as tar has it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from mhnos_runtime.errors import InvalidRequest, LimitReached, MhnosError, Refused
from mhnos_runtime.files.archives.entry import ArchiveEntry, End, Event
from mhnos_runtime.files.confine import Workspace, by_fd
from mhnos_runtime.files.create import create_exclusive, create_unnamed
from mhnos_runtime.files.draft import partial_name, stat_at
from mhnos_runtime.files.partials import Place
from mhnos_runtime.files.paths import MAX_NAME_BYTES, MAX_PATH_BYTES, explain, require_shown, shown
from mhnos_runtime.files.push_pull import MAX_MTIME_MS
from mhnos_runtime.files.space import Space, require_space

MAX_ENTRIES = 5_000_000
"""Of one archive; some hours of work."""

MAX_DEPTH = 256
"""Folders around an entry: each is a step of resolving it."""

NAMED_FAILURES = 100

MAX_DATED = 50_000
"""Directories that get mode and time at the end, when nothing changes them any more: some 10 MB. Others keep
those of the unpacking."""

STEP_BYTES = 1 << 16
"""Content that is worth a step."""

STEP_PIECES = 8
"""Pieces that are, however short: megabytes of a zip archive may be inflated to nothing."""

_FOLDER_USES = 1000
"""Entries for which a folder is held: then it is resolved again, and one that was moved meanwhile is left."""

_BLOCK_BYTES = 4096
"""What the smallest file takes of a disk."""

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_MTIME_NS = int(MAX_MTIME_MS) * 1_000_000


@dataclass(slots=True)
class Unpacked:
    """bytes: of all files that were written. failures: (path in the archive, why), NAMED_FAILURES at most."""

    written: int = 0
    bytes: int = 0
    failed: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class _Folder:
    """One folder of the archive, held open (O_PATH). owner: who gets what root makes in it."""

    name: bytes
    fd: int
    owner: tuple[int, int]
    uses: int = 0


class Unpack:
    """take() what an archive says, then finish(). An entry that fails is told of in `result`, and the others
    go on. close() drops a file that has not ended. Nothing here raises for one entry."""

    def __init__(self, workspace: Workspace, path: str) -> None:
        """Into the directory at this path, which is made if it is missing. Raises as Workspace does."""
        workspace.make_dirs(path)
        with workspace.resolve(path) as found:
            self._top = found.place
        self._into = workspace.below(path)
        self._folder: _Folder | None = None
        self._entry = ArchiveEntry(b"", "refused")
        self._why = ""
        self._fd = -1
        self._leaf = b""
        self._old: os.stat_result | None = None
        self._partial = partial_name()
        self._note = workspace.partials.begin((), self._partial)
        self._space = Space(self._into.min_free)
        self._dated: list[tuple[str, int, int | None]] = []
        self._is_root = os.geteuid() == 0
        self._umask = _umask()
        self.result = Unpacked()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._drop()
        self._note.end()
        self._leave()
        self._into.close()

    def take(self, events: Iterable[Event]) -> Iterator[None]:
        """A small entry, or a piece of a larger one, a step. Raises what `events` raise, and LimitReached
        (too-large)."""
        pieces = 0
        for event in events:
            try:
                if isinstance(event, memoryview):
                    self._write(event)
                elif isinstance(event, ArchiveEntry):
                    self._begin(event)
                else:
                    self._commit(event)
            except OSError as error:
                self._why = self._why or explain(error, "").message.removesuffix(": ")
            except MhnosError as error:
                self._why = self._why or error.message
            pieces += 1
            if isinstance(event, End):
                self._count()
            elif not (isinstance(event, memoryview) and (len(event) >= STEP_BYTES or pieces >= STEP_PIECES)):
                continue
            pieces = 0
            yield

    def finish(self) -> Iterator[None]:
        """Modes and times of directories, the deepest first."""
        for path, mode, mtime_ns in reversed(self._dated):
            # One that is gone, or another user's by now, was made all the same.
            with suppress(MhnosError), self._into.resolve(path) as found:
                if stat.S_ISDIR(found.mode):
                    os.chmod(by_fd(found.fd), mode)
                    if mtime_ns is not None:
                        os.utime(by_fd(found.fd), ns=(mtime_ns, mtime_ns))
            yield

    def spare(self) -> int:
        """A file without a name on the same disk, open for reading and writing; the caller closes it."""
        folder = self._enter(b"")
        with suppress(OSError):
            return create_unnamed(os.O_RDWR, 0o600, folder.fd)
        # A file system that knows no such files.
        fd = create_exclusive(self._partial, os.O_RDWR, 0o600, folder.fd)
        os.unlink(self._partial, dir_fd=folder.fd)
        return fd

    def require_space(self, coming: int) -> None:
        """Raises LimitReached (disk-full) where the disk has no room for so much."""
        folder = self._enter(b"")
        require_space(folder.fd, max(self._into.min_free, 1), coming)

    # One entry

    def _begin(self, entry: ArchiveEntry) -> None:
        self._entry, self._why = entry, ""
        if entry.kind == "refused":
            raise InvalidRequest(entry.why)
        if entry.mtime_ns is not None and abs(entry.mtime_ns) > _MAX_MTIME_NS:
            entry.mtime_ns = None
        if entry.kind == "directory":
            self._make_directory(entry)
            return
        folder = self._place(entry.name)
        self._old = _replaceable(self._leaf, folder.fd)
        self._space.look(folder.fd, max(entry.size, _BLOCK_BYTES))
        if entry.kind == "file":
            self._fd = os.open(self._partial, _NEW, entry.mode & 0o777, dir_fd=folder.fd)
            self._note.made(os.fstat(self._fd))

    def _write(self, piece: memoryview) -> None:
        """Content of an entry that failed is dropped."""
        if self._fd >= 0 and not self._why:
            while (written := os.write(self._fd, piece)) < len(piece):
                piece = piece[written:]

    def _count(self) -> None:
        entry, result = self._entry, self.result
        if result.written + result.failed >= MAX_ENTRIES:
            raise LimitReached(
                f"The archive has more than {MAX_ENTRIES} entries", code="too-large", hint="send it in parts"
            )
        if not self._why:
            result.written += 1
            result.bytes += entry.size if entry.kind == "file" else 0
            return
        self._drop()
        result.failed += 1
        if len(result.failures) < NAMED_FAILURES:
            named = entry.name[:MAX_PATH_BYTES].decode(errors="surrogateescape")
            result.failures.append((shown(named), self._why))

    def _commit(self, end: End) -> None:
        entry, folder = self._entry, self._folder
        if end.why:
            raise InvalidRequest(end.why)
        if self._why or folder is None or entry.kind == "directory":
            return
        if entry.kind == "file":
            self._finish_file(entry, folder)
        elif entry.kind == "link":
            self._make_link(entry, folder)
        else:
            self._link_to(entry.target, folder)
        os.rename(self._partial, self._leaf, src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
        if entry.kind == "hardlink":
            # rename(2) does nothing where both are the same file already.
            with suppress(FileNotFoundError):
                os.unlink(self._partial, dir_fd=folder.fd)

    def _make_link(self, entry: ArchiveEntry, folder: _Folder) -> None:
        _check_target(entry)
        os.symlink(entry.target, self._partial, dir_fd=folder.fd)
        self._note.made(os.stat(self._partial, dir_fd=folder.fd, follow_symlinks=False))
        if self._is_root:
            os.chown(self._partial, *folder.owner, dir_fd=folder.fd, follow_symlinks=False)
        if entry.mtime_ns is not None:
            times = (entry.mtime_ns, entry.mtime_ns)
            os.utime(self._partial, ns=times, dir_fd=folder.fd, follow_symlinks=False)

    def _finish_file(self, entry: ArchiveEntry, folder: _Folder) -> None:
        fd = self._fd
        if self._is_root:
            owner = folder.owner if self._old is None else (self._old.st_uid, self._old.st_gid)
            if owner != (0, 0):
                os.fchown(fd, *owner)
        if entry.mode & 0o777 & self._umask:
            os.fchmod(fd, entry.mode & 0o777)
        if entry.mtime_ns is not None:
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        self._fd = -1
        os.close(fd)  # Network file systems report a full disk only here.

    def _link_to(self, target: bytes, folder: _Folder) -> None:
        parent, leaf = _split(target)
        path = (parent + b"/" + leaf).lstrip(b"/").decode()
        with self._into.resolve(path, follow=False) as found:
            if not stat.S_ISREG(found.mode):
                raise InvalidRequest("What it is a hard link to is no file that is there")
            # By descriptor: the file that was looked at, whatever its name means by now.
            self._note.made(os.fstat(found.fd))
            os.link(by_fd(found.fd), self._partial, dst_dir_fd=folder.fd, follow_symlinks=True)

    def _make_directory(self, entry: ArchiveEntry) -> None:
        names = [name for name in entry.name.split(b"/") if name not in (b"", b".")]
        if not names and not entry.name.startswith(b"/"):
            return  # "./": the directory that is unpacked into.
        parent, leaf = _split(entry.name)
        path = (parent + b"/" + leaf).lstrip(b"/").decode()
        self._space.look(self._enter(b"").fd, _BLOCK_BYTES)
        self._into.make_dirs(path)
        if len(self._dated) < MAX_DATED:
            self._dated.append((path, entry.mode & 0o777, entry.mtime_ns))

    def _drop(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with suppress(OSError):
                os.close(fd)
        if self._folder is not None:
            with suppress(OSError):
                os.unlink(self._partial, dir_fd=self._folder.fd)

    # Folders

    def _place(self, name: bytes) -> _Folder:
        """The folder for an entry, whose own name is in `_leaf` then."""
        folder = self._folder
        if folder is not None and name.startswith(folder.name) and folder.uses < _FOLDER_USES:
            leaf = name[len(folder.name) :]
            if b"/" not in leaf and len(name) <= MAX_PATH_BYTES:
                _check_leaf(leaf)
                folder.uses += 1
                self._leaf = leaf
                return folder
        parent, leaf = _split(name)
        self._leaf = leaf
        return self._enter(parent)

    def _enter(self, parent: bytes) -> _Folder:
        name = parent + b"/" if parent else b""
        folder = self._folder
        if folder is not None and folder.name == name and folder.uses < _FOLDER_USES:
            folder.uses += 1
            return folder
        self._leave()
        path = parent.decode() or "."
        self._into.make_dirs(path)
        with self._into.resolve(path) as found:
            if not stat.S_ISDIR(found.mode):
                raise OSError(errno.ENOTDIR, "")
            fd, place = os.dup(found.fd), found.place
        self._note.note(Place(b"/".join([*self._top, *place]), self._partial))
        status = os.fstat(fd)
        self._folder = _Folder(name, fd, (status.st_uid, status.st_gid))
        return self._folder

    def _leave(self) -> None:
        folder, self._folder = self._folder, None
        if folder is not None:
            os.close(folder.fd)


def _umask() -> int:
    """Without changing it, which other threads would see (proc_pid_status(5))."""
    with open("/proc/self/status", "rb") as status:
        return next((int(line.split()[1], 8) for line in status if line.startswith(b"Umask:")), 0o777)


def _split(name: bytes) -> tuple[bytes, bytes]:
    """The folder of an entry and its own name, in plain form. Raises where it is none inside the archive."""
    if name.startswith(b"/"):
        raise Refused("An absolute path", code="outside-workspace")
    names = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in names:
        raise Refused('A path with ".."', code="outside-workspace")
    if not names:
        raise InvalidRequest("It has no name")
    if len(names) > MAX_DEPTH:
        raise InvalidRequest(f"In more than {MAX_DEPTH} folders")
    if len(name) > MAX_PATH_BYTES:
        raise InvalidRequest(f"A path of more than {MAX_PATH_BYTES} bytes")
    for part in names:
        _check_leaf(part)
    return b"/".join(names[:-1]), names[-1]


def _check_leaf(name: bytes) -> None:
    if name in (b"", b".", b".."):
        raise InvalidRequest("It has no name")
    if len(name) > MAX_NAME_BYTES:
        raise InvalidRequest(f"A name of more than {MAX_NAME_BYTES} bytes")
    if b"\0" in name:
        raise InvalidRequest("A name with a NUL character")
    require_shown(name)
    try:
        name.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("A name that is not valid UTF-8") from None


def _check_target(entry: ArchiveEntry) -> None:
    """A link may only lead to where its text alone leads: somewhere in the directory that is unpacked into.
    Where it leads by other links is looked at whenever it is followed."""
    target = entry.target
    if not target or b"\0" in target or len(target) >= MAX_PATH_BYTES:
        raise InvalidRequest("A link without a path that one can have")
    if target.startswith(b"/"):
        raise Refused("A link to an absolute path", code="outside-workspace")
    depth = len([name for name in entry.name.split(b"/") if name not in (b"", b".")]) - 1
    for name in target.split(b"/"):
        depth += -1 if name == b".." else name not in (b"", b".")
        if depth < 0:
            raise Refused("A link that leads out of what is unpacked", code="outside-workspace")


def _replaceable(leaf: bytes, folder: int) -> os.stat_result | None:
    """What an entry replaces: a link itself, not what it leads to. A rename alone would replace a read-only
    file, too. Raises OSError and InvalidRequest."""
    # Costs no exception, unlike stat: there is nothing at most names.
    if not os.access(leaf, os.F_OK, dir_fd=folder, follow_symlinks=False):
        return None
    old = stat_at(leaf, folder)
    if old is None:
        return None
    if stat.S_ISDIR(old.st_mode):
        raise OSError(errno.EISDIR, "")
    if stat.S_ISREG(old.st_mode):
        if not os.access(leaf, os.W_OK, dir_fd=folder, effective_ids=True, follow_symlinks=False):
            raise OSError(errno.EACCES, "")
        return old
    if stat.S_ISLNK(old.st_mode):
        return None
    raise InvalidRequest("There is something that is neither a file nor a link")
