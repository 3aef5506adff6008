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
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Literal, Self

from mhnos_runtime.errors import InvalidRequest, LimitReached, MhnosError
from mhnos_runtime.files.confine import (
    MAX_PATH_BYTES,
    Resolved,
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

MAX_PUSH_ENTRIES = MAX_PULL_ENTRIES
"""In one push, for the same reason; what is beyond fails."""

MAX_LISTED_ERRORS = 1000
"""Of a push or a pull, named one by one; all are counted. A client shows some to a person."""

MAX_PULL_PATH_BYTES = 32 << 20
"""Of all paths in one pull: those of one directory, and of those above it, are held at a time."""

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
    """Writes each entry, with its parents, as Push does. Raises only what iterating `entries` raises."""
    with Push(workspace) as writing:
        for entry in entries:
            writing.begin(entry.path, entry.kind)
            try:
                for chunk in entry.chunks if writing.takes else ():
                    writing.write(chunk)
            except MhnosError as error:
                writing.fail(error.message)
            writing.end(entry.mtime_ms)
        for _ in writing.finish():
            pass
        return writing.result


class Push:
    """A push that comes in pieces: begin, write and end for each entry, then finish.

    An entry that fails leaves what was there before, and the others go on. A file is written beside its
    target and renamed onto it: no reader ever sees half of it, and a full disk costs nothing that was there.
    The target keeps its permission bits and, where that is allowed, its owner; its other hard links keep the
    old content. A link that stays inside stays, its target is replaced. Leaving the context, or `close`,
    drops a file that has not ended. No method raises for what is wrong with an entry: the result tells.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._synced = self._failed = 0
        self._errors: list[tuple[str, str]] = []
        self._directories: list[tuple[str, float]] = []
        self._path = self._kind = ""
        self._error = ""
        self._draft: _Draft | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        draft, self._draft = self._draft, None
        if draft is not None:
            draft.drop()

    @property
    def takes(self) -> bool:
        """Whether content is of use."""
        return self._draft is not None

    def begin(self, path: str, kind: str) -> None:
        self._path, self._kind, self._error = path, kind, ""
        with self._failing():
            if self._synced + self._failed >= MAX_PUSH_ENTRIES:
                raise LimitReached(f"More than the {MAX_PUSH_ENTRIES} files and directories of one push")
            if kind == "directory":
                self._workspace.make_dirs(path)
            elif kind == "file":
                self._draft = _Draft(self._workspace, path)
            else:
                raise InvalidRequest(f'Kind is neither "file" nor "directory": {shown(path)}')

    def write(self, chunk: bytes) -> None:
        """Content that is of no use is dropped."""
        if self._draft is not None:
            with self._failing():
                self._draft.write(chunk)

    def fail(self, reason: str) -> None:
        """What began last is not to be written. The first reason counts."""
        self._error = self._error or reason
        self.close()

    def end(self, mtime_ms: float | None) -> None:
        """mtime_ms: epoch milliseconds, None for now."""
        with self._failing():
            mtime_ns = _mtime_ns(self._path, mtime_ms)
            if self._draft is not None:
                self._draft.commit(mtime_ns)
                self._draft = None
            elif mtime_ms is not None and not self._error:
                self._directories.append((self._path, mtime_ms))
        if not self._error:
            self._synced += 1
            return
        self._failed += 1
        if len(self._errors) < MAX_LISTED_ERRORS:
            self._errors.append((self._path[:MAX_PATH_BYTES], self._error))

    @property
    def result(self) -> PushResult:
        return PushResult(self._synced, self._failed, self._errors)

    def finish(self) -> Iterator[None]:
        """Dates the directories, one a step, after all content, which would change their dates again."""
        for path, mtime_ms in self._directories:
            mtime_ns = _mtime_ns(path, mtime_ms)
            # A directory that is gone or another user's by now was still synced.
            with suppress(MhnosError), self._workspace.resolve(path) as resolved:
                if mtime_ns is not None and stat.S_ISDIR(resolved.mode):
                    os.utime(by_fd(resolved.fd), ns=(mtime_ns, mtime_ns))
            yield

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.fail(explain(error, self._path).message)
        except MhnosError as error:
            self.fail(error.message)


def _mtime_ns(path: str, mtime_ms: float | None) -> int | None:
    if mtime_ms is None:
        return None
    if not -MAX_MTIME_MS <= mtime_ms <= MAX_MTIME_MS:  # False for NaN, too.
        raise InvalidRequest(f"mtime is not an instant in epoch milliseconds: {shown(path)}")
    # Apart, since a float has no room for an instant in nanoseconds.
    fraction_ms, whole_ms = math.modf(mtime_ms)
    return int(whole_ms) * 1_000_000 + round(fraction_ms * 1_000_000)


class _Draft:
    """A file beside its target, until it takes its place or is dropped. Holds three descriptors at most; each
    method may raise OSError and MhnosError, after which `drop` is due."""

    def __init__(self, workspace: Workspace, path: str) -> None:
        self._fd = -1
        self._name = PARTIAL_PREFIX.encode() + secrets.token_hex(16).encode()
        with ExitStack() as stack:
            self._place = stack.enter_context(workspace.resolve(path, make_parents=True))
            self._old = _writable(self._place, path) if self._place.fd >= 0 else None
            self._mode = stat.S_IMODE(self._old.st_mode) & 0o777 if self._old else 0o644
            self._fd = create_exclusive(self._name, os.O_WRONLY, self._mode, self._place.parent_fd)
            self._held = stack.pop_all()

    def write(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def commit(self, mtime_ns: int | None) -> None:
        # By descriptor throughout: by now the name may mean something that a process has put there.
        if self._old:
            _keep_owner(self._fd, self._old)
            os.fchmod(self._fd, self._mode)
        if mtime_ns is not None:
            os.utime(self._fd, ns=(mtime_ns, mtime_ns))
        self._close()
        parent = self._place.parent_fd
        os.rename(self._name, self._place.name, src_dir_fd=parent, dst_dir_fd=parent)
        self._held.close()

    def drop(self) -> None:
        with self._held:
            with suppress(OSError):
                os.unlink(self._name, dir_fd=self._place.parent_fd)
            with suppress(OSError):
                self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)  # Network file systems tell of a full disk only here.


def _writable(resolved: Resolved, path: str) -> os.stat_result:
    """What is there, if it may be written: a rename alone would replace a read-only file without asking."""
    require_regular(resolved, path)
    try:
        os.close(reopen(resolved, os.O_WRONLY))
    except OSError as error:
        if error.errno != errno.ETXTBSY:  # A running program's file cannot be rewritten, but replaced.
            raise
    return os.fstat(resolved.fd)


def _keep_owner(fd: int, old: os.stat_result) -> None:
    now = os.fstat(fd)
    if (now.st_uid, now.st_gid) != (old.st_uid, old.st_gid):
        with suppress(PermissionError):  # Only root may; the content matters more.
            os.fchown(fd, old.st_uid, old.st_gid)


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
    So does a file that alone is over `max_bytes`, holes counted.
    Raises LimitReached: with code too-large when the content of all others is over `max_bytes`, or there are
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
            item = _open_item(workspace, path, max_bytes)
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
        self._bytes = self._entries = self._steps = self._path_bytes = 0

    def take(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._max_bytes:
            raise _too_large(
                f"The workspace holds at least {self._bytes} bytes; one pull carries {self._max_bytes}"
            )

    def list(self, folder: str, name: str) -> None:
        self._entries += 1
        self._path_bytes += len(folder) + len(name)
        self._steps += folder.count("/") + 1
        if self._entries > self._max_entries:
            raise _too_large(
                f"The workspace holds more than the {self._max_entries} files and directories of one pull"
            )
        if self._steps > MAX_PULL_STEPS or self._path_bytes > MAX_PULL_PATH_BYTES:
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
                    budget.list(path, entry.name)
                    names.append(entry.name)
    except OSError as error:
        raise explain(error, path) from error
    finally:
        os.close(listing)


def _open_item(workspace: Workspace, path: str, max_bytes: int) -> PulledFile:
    with workspace.resolve(path, follow=False) as resolved:
        if stat.S_ISDIR(resolved.mode):
            return PulledFile(path, "directory", os.fstat(resolved.fd))
        if stat.S_ISREG(resolved.mode):
            return _pulled(path, reopen(resolved, os.O_RDONLY), max_bytes)
    # A link is followed here, to a regular file only; everything else is refused with its reason.
    return _pulled(path, workspace.open_file(path, os.O_RDONLY), max_bytes)


def _pulled(path: str, fd: int, max_bytes: int) -> PulledFile:
    item = PulledFile(path, "file", os.fstat(fd), io.FileIO(fd))
    if item.size > max_bytes:
        item.close()
        raise InvalidRequest(f"{item.size} bytes, and one pull carries {max_bytes}: {shown(path)}")
    return item
