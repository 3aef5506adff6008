"""Whole files into and out of the workspace, as fsync wants them. Knows paths only through Workspace.

Blocking, and bounded by one chunk in memory. Must not know messages, sockets or an event loop.
"""

from __future__ import annotations

import errno
import io
import math
import os
import secrets
import stat
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from mhnos_runtime.errors import InvalidRequest, LimitReached, MhnosError
from mhnos_runtime.files.confine import (
    Place,
    Workspace,
    by_fd,
    create_exclusive,
    explain,
    normalise,
    reopen,
    require_regular,
    shown,
)

Kind = Literal["file", "directory"]

OnSkip = Callable[[str, str], None]
"""Told (path, reason) of what a pull leaves out; both fit for a message."""

PARTIAL_PREFIX = ".mhnos-push-"
"""Files that are still being written, or were when a server was killed. Never pulled."""

MAX_MTIME_MS = 8.64e15
"""The largest instant a JavaScript Date can name; every 64-bit file system holds it."""

CHUNK_BYTES = 256 * 1024
"""Read at a time: large enough that the calls do not show, small enough for many transfers at once."""

MAX_PULL_ENTRIES = 100_000
"""Files and directories in one pull: some 50 MB of names and objects in the process that collects them."""

MAX_PULL_STEPS = 5_000_000
"""Components of all paths in one pull, each a call or two: some 30 s of a thread, for hostile trees only."""


@dataclass(frozen=True, slots=True)
class PushEntry:
    """One thing to write. mtime_ms: epoch milliseconds, None for now. `chunks`: read once, files only."""

    path: str
    kind: Kind
    chunks: Iterable[bytes] = ()
    mtime_ms: float | None = None


@dataclass(frozen=True, slots=True)
class PushResult:
    """How many entries are in place, how many are not, and for each of those (path as given, reason)."""

    synced: int
    failed: int
    errors: list[tuple[str, str]]


def push(workspace: Workspace, entries: Iterable[PushEntry]) -> PushResult:
    """Writes each entry, with its parents; one that fails leaves what was there before, and the others go on.

    A file is written beside its target and renamed onto it: no reader ever sees half of it, and a full disk
    costs nothing that was there. The target keeps its permission bits and, where that is allowed, its owner;
    its other hard links keep the old content. A link that stays inside stays, its target is replaced.
    Raises only what iterating `entries` raises.
    """
    synced, errors, directories = 0, list[tuple[str, str]](), list[PushEntry]()
    for entry in entries:
        try:
            _push_one(workspace, entry, directories)
            synced += 1
        except MhnosError as error:
            errors.append((entry.path, error.message))
    _date_directories(workspace, directories)
    return PushResult(synced, len(errors), errors)


def _push_one(workspace: Workspace, entry: PushEntry, directories: list[PushEntry]) -> None:
    mtime_ns = _mtime_ns(entry)
    if entry.kind == "directory":
        workspace.make_dirs(entry.path)
        if mtime_ns is not None:
            directories.append(entry)
    elif entry.kind == "file":
        with workspace.resolve(entry.path, make_parents=True) as place:
            _replace(place, entry, mtime_ns)
    else:
        raise InvalidRequest(f'Kind is neither "file" nor "directory": {shown(entry.path)}')


def _mtime_ns(entry: PushEntry) -> int | None:
    if entry.mtime_ms is None:
        return None
    if not -MAX_MTIME_MS <= entry.mtime_ms <= MAX_MTIME_MS:  # False for NaN, too.
        raise InvalidRequest(f"mtime is not an instant in epoch milliseconds: {shown(entry.path)}")
    # Apart, since a float has no room for an instant in nanoseconds.
    fraction_ms, whole_ms = math.modf(entry.mtime_ms)
    return int(whole_ms) * 1_000_000 + round(fraction_ms * 1_000_000)


def _replace(place: Place, entry: PushEntry, mtime_ns: int | None) -> None:
    """Puts the entry's content where `place` is, or changes nothing and raises (also OSError)."""
    old = _writable(place, entry.path) if place.fd >= 0 else None
    partial = PARTIAL_PREFIX.encode() + secrets.token_hex(16).encode()
    mode = stat.S_IMODE(old.st_mode) & 0o777 if old else 0o644
    fd = create_exclusive(partial, os.O_WRONLY, mode, place.parent_fd)
    try:
        # By descriptor throughout: by now the name may mean something that a process has put there.
        _fill(fd, entry.chunks, old, mode, mtime_ns)
        os.rename(partial, place.name, src_dir_fd=place.parent_fd, dst_dir_fd=place.parent_fd)
    except BaseException:
        with suppress(OSError):
            os.unlink(partial, dir_fd=place.parent_fd)
        raise


def _writable(place: Place, path: str) -> os.stat_result:
    """What is there, if it may be written: a rename alone would replace a read-only file without asking."""
    require_regular(place, path)
    try:
        os.close(reopen(place, os.O_WRONLY))
    except OSError as error:
        if error.errno != errno.ETXTBSY:  # A running program's file cannot be rewritten, but replaced.
            raise
    return os.fstat(place.fd)


def _fill(
    fd: int, chunks: Iterable[bytes], old: os.stat_result | None, mode: int, mtime_ns: int | None
) -> None:
    try:
        for chunk in chunks:
            _write_all(fd, chunk)
        if old:
            _keep_owner(fd, old)
            os.fchmod(fd, mode)
        if mtime_ns is not None:
            os.utime(fd, ns=(mtime_ns, mtime_ns))
    finally:
        os.close(fd)  # Network file systems tell of a full disk only here.


def _write_all(fd: int, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _keep_owner(fd: int, old: os.stat_result) -> None:
    now = os.fstat(fd)
    if (now.st_uid, now.st_gid) != (old.st_uid, old.st_gid):
        with suppress(PermissionError):  # Only root may; the content matters more.
            os.fchown(fd, old.st_uid, old.st_gid)


def _date_directories(workspace: Workspace, directories: list[PushEntry]) -> None:
    """After all content, which would change the dates again."""
    for entry in directories:
        mtime_ns = _mtime_ns(entry)
        # A directory that is gone or another user's by now was still synced.
        with suppress(MhnosError), workspace.resolve(entry.path) as place:
            if mtime_ns is not None and stat.S_ISDIR(place.mode):
                os.utime(by_fd(place.fd), ns=(mtime_ns, mtime_ns))


class PulledFile:
    """One file or directory of a pull. path: as the client knows it. size: bytes, 0 for a directory.

    Its content can be read until the next one is asked for.
    """

    __slots__ = ("_file", "kind", "mtime_ms", "path", "size")

    def __init__(self, path: str, kind: Kind, status: os.stat_result, file: io.FileIO | None = None) -> None:
        self.path, self.kind, self._file = path, kind, file
        self.size = status.st_size if kind == "file" else 0
        self.mtime_ms = status.st_mtime_ns / 1_000_000

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        """The content from its start: never more than `size` bytes if the file grows, fewer if it shrinks.

        Raises ValueError when the pull has gone on, MhnosError when the disk fails.
        """
        position = 0
        while self._file is not None and position < self.size:
            chunk = self._read(self._file, min(chunk_bytes, self.size - position), position)
            if not chunk:
                return
            position += len(chunk)
            yield chunk

    def _read(self, file: io.FileIO, length: int, position: int) -> bytes:
        try:
            # FileIO, unlike a bare number, refuses once closed, when the number may mean another file.
            return os.pread(file.fileno(), length, position)
        except OSError as error:
            raise explain(error, self.path) from error

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _ignore(path: str, reason: str) -> None:
    del path, reason


def pull(
    workspace: Workspace,
    *,
    max_bytes: int,
    max_entries: int = MAX_PULL_ENTRIES,
    on_skip: OnSkip = _ignore,
    leave_out: Container[str] = (),
) -> Iterator[PulledFile]:
    """Everything in the workspace, sorted by name within each directory, a directory before its content.
    leave_out: paths, such as "/a/b", that are passed over with all that is in them.

    A link to a file inside comes as that file; no link to a directory is entered. What is neither file nor
    directory, leads outside, is unreadable, cannot be named in UTF-8 or vanishes meanwhile goes to
    `on_skip(path, reason)` instead. One descriptor is open at a time, however deep the tree.
    Raises LimitReached: with code too-large when the content of all files is over `max_bytes`, or there are
    more than `max_entries` or too deep ones, before what is too much; with code unavailable when the runtime
    is out of descriptors or memory, since a file that is left out for that looks deleted to who syncs.
    """
    budget = _Budget(max_bytes, max_entries)
    todo = _children(workspace, "/", budget, on_skip)
    while todo:
        path = todo.pop()
        if path in leave_out:
            continue
        item = None
        with _Skipping(path, on_skip):
            item = _open_item(workspace, path)
        if item is None:
            continue
        try:
            budget.take(item.size)
            yield item
        finally:
            item.close()
        if item.kind == "directory":
            todo += _children(workspace, path, budget, on_skip)


class _Budget:
    """What a pull may still hand out, so that who collects it knows a bound beforehand."""

    def __init__(self, max_bytes: int, max_entries: int) -> None:
        self._max_bytes, self._max_entries = max_bytes, max_entries
        self._bytes = self._entries = self._steps = 0

    def take(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._max_bytes:
            raise _too_large(
                f"The workspace holds at least {self._bytes} bytes; one pull carries {self._max_bytes}"
            )

    def list(self, folder: str) -> None:
        self._entries += 1
        self._steps += folder.count("/") + 1
        if self._entries > self._max_entries:
            raise _too_large(
                f"The workspace holds more than the {self._max_entries} files and directories of one pull"
            )
        if self._steps > MAX_PULL_STEPS:
            raise _too_large("The workspace's folders are too many and too deep for one pull")


def _too_large(message: str) -> LimitReached:
    return LimitReached(message, code="too-large", hint="Remove what is not needed, or fetch single files.")


class _Skipping:
    """Reports what fails inside and goes on; but a bound that was met concerns all of the pull."""

    def __init__(self, path: str, on_skip: OnSkip) -> None:
        self._path, self._on_skip = path, on_skip

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, MhnosError) or isinstance(error, LimitReached):
            return False
        self._on_skip(shown(self._path), error.message)
        return True


def _children(workspace: Workspace, path: str, budget: _Budget, on_skip: OnSkip) -> list[str]:
    """The paths in a directory, last one first, as a stack wants them."""
    names, children = list[str](), list[str]()
    with _Skipping(path, on_skip):
        _list_names(workspace.open_dir(path, follow=False, listing=True), path, budget, names)
    for name in sorted(names, reverse=True):
        with _Skipping(f"{path.rstrip('/')}/{name}", on_skip):
            children.append(normalise(name, path))
    return children


def _list_names(listing: int, path: str, budget: _Budget, names: list[str]) -> None:
    """Owns and closes `listing`. Adds to `names`, so that what a failing disk still gave is not lost."""
    try:
        with os.scandir(listing) as entries:
            for entry in entries:
                if not entry.name.startswith(PARTIAL_PREFIX):
                    budget.list(path)
                    names.append(entry.name)
    except OSError as error:
        raise explain(error, path) from error
    finally:
        os.close(listing)


def _open_item(workspace: Workspace, path: str) -> PulledFile:
    with workspace.resolve(path, follow=False) as place:
        if stat.S_ISDIR(place.mode):
            return PulledFile(path, "directory", os.fstat(place.fd))
        if stat.S_ISREG(place.mode):
            return _pulled(path, reopen(place, os.O_RDONLY))
    # A link is followed here, to a regular file only; everything else is refused with its reason.
    return _pulled(path, workspace.open_file(path, os.O_RDONLY))


def _pulled(path: str, fd: int) -> PulledFile:
    return PulledFile(path, "file", os.fstat(fd), io.FileIO(fd))
