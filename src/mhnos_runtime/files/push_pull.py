"""Whole files into and out of the workspace, for fsync. Knows paths only through Workspace.

Blocks; holds one chunk in memory. Must not know messages, sockets or an event loop.
"""

from __future__ import annotations

import io
import math
import os
import stat
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal, Self

from mhnos_runtime.errors import InvalidRequest, LimitReached, MhnosError
from mhnos_runtime.files.confine import Workspace, by_fd, reopen
from mhnos_runtime.files.draft import Draft
from mhnos_runtime.files.paths import MAX_PATH_BYTES, PARTIAL_PREFIX, explain, normalise, shown

Kind = Literal["file", "directory"]

OnSkip = Callable[[str, str], None]
"""Called with (path, reason) for what a pull leaves out; both can stand in a message."""

MAX_MTIME_MS = 8.64e15
"""The largest time of a JavaScript Date; every 64-bit file system can store it."""

CHUNK_BYTES = 256 * 1024
"""Bytes of a read: large enough that calls cost little, small enough for many transfers at once."""

MAX_PULL_ENTRIES = 100_000
"""Files and directories in one pull: some 50 MB of names and objects in memory."""

MAX_PUSH_ENTRIES = MAX_PULL_ENTRIES
"""Files and directories in one push, for the same reason; further ones fail."""

MAX_LISTED_ERRORS = 1000
"""Failures of a push or pull that are named; all are counted."""

MAX_PULL_PATH_BYTES = 32 << 20
"""Bytes of all paths in one pull that are in memory at a time: a directory's and those of its ancestors."""

MAX_PULL_STEPS = 5_000_000
"""Components of all paths in one pull, each a call or two: some 30 s of a thread, for hostile trees only."""


@dataclass(frozen=True, slots=True)
class PushEntry:
    """One file or directory to write. mtime_ms: epoch milliseconds, None for now. `chunks`: files only."""

    path: str
    kind: Kind
    chunks: Iterable[bytes] = ()
    mtime_ms: float | None = None


@dataclass(frozen=True, slots=True)
class PushResult:
    """Counts of entries that were written and that failed, and for each of the latter (path, reason)."""

    synced: int
    failed: int
    errors: list[tuple[str, str]]


def push(workspace: Workspace, entries: Iterable[PushEntry]) -> PushResult:
    """Write each entry and its parents, as Push does. Raises only what iterating `entries` raises."""
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

    An entry that fails leaves the old file as it was, and the others go on. A file is written beside its
    target and renamed onto it: no reader sees half of it, and a full disk destroys nothing. The target keeps
    its permission bits and, if allowed, its owner; its other hard links keep the old content. A link that
    leads inside the workspace stays, and its target is replaced. `close` drops a file that has not ended.
    No method raises for a bad entry: the result tells.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._synced = self._failed = 0
        self._errors: list[tuple[str, str]] = []
        self._directories: list[tuple[str, float]] = []
        self._path = self._kind = ""
        self._error = ""
        self._draft: Draft | None = None

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
        """Whether the current entry wants content."""
        return self._draft is not None

    def begin(self, path: str, kind: str) -> None:
        self._path, self._kind, self._error = path, kind, ""
        with self._failing():
            if self._synced + self._failed >= MAX_PUSH_ENTRIES:
                raise LimitReached(f"More than the {MAX_PUSH_ENTRIES} files and directories of one push")
            if kind == "directory":
                self._workspace.make_dirs(path)
            elif kind == "file":
                self._draft = Draft(self._workspace, path)
            else:
                raise InvalidRequest(f'Kind is neither "file" nor "directory": {shown(path)}')

    def write(self, chunk: bytes) -> None:
        """Content of an entry that failed is dropped."""
        if self._draft is not None:
            with self._failing():
                self._draft.write(chunk)

    def fail(self, reason: str) -> None:
        """The current entry fails. The first reason counts."""
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
        """Set the times of directories, one a step, after all content, which changes them."""
        for path, mtime_ms in self._directories:
            mtime_ns = _mtime_ns(path, mtime_ms)
            # A directory that is gone, or another user's by now, was still synced.
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
    # Two parts, since a float cannot hold an instant in nanoseconds.
    fraction_ms, whole_ms = math.modf(mtime_ms)
    return int(whole_ms) * 1_000_000 + round(fraction_ms * 1_000_000)


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
        """The content from the start: at most `size` bytes if the file grows, fewer if it shrinks.

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
            # A closed FileIO raises; a bare number may be another file's by now.
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
    """All files and directories, sorted by name within each directory, a directory before its content.
    leave_out: paths, such as "/a/b", that are skipped with their content.

    A link to a file inside the workspace is pulled as that file; links to directories are not entered.
    Skipped entries go to `on_skip(path, reason)`: neither file nor directory, outside the workspace,
    unreadable, name not in UTF-8, gone meanwhile, or a file that alone exceeds `max_bytes`, holes counted.
    One descriptor is open at a time, however deep the tree. Raises LimitReached: with code too-large when the
    other files together exceed `max_bytes`, or the tree is too deep or has more than `max_entries`; with code
    unavailable when descriptors or memory run out, since a client that syncs would take a skipped file for a
    deleted one.
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
    """What a pull may still hand out, so that its receiver knows a bound beforehand."""

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
    """Reports a failure inside and goes on. Only a limit that was reached ends the whole pull."""

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
    """The paths in a directory, last one first, for use as a stack."""
    names, children = list[str](), list[str]()
    with _Skipping(path, on_skip):
        _list_names(workspace.open_dir(path, follow=False, listing=True), path, budget, names)
    for name in sorted(names, reverse=True):
        with _Skipping(f"{path.rstrip('/')}/{name}", on_skip):
            children.append(normalise(name, path))
    return children


def _list_names(listing: int, path: str, budget: _Budget, names: list[str]) -> None:
    """Owns and closes `listing`. Adds to `names`, so that names read before a disk failure are kept."""
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
    # Follows a link here, to a regular file only; everything else is refused with its reason.
    return _pulled(path, workspace.open_file(path, os.O_RDONLY), max_bytes)


def _pulled(path: str, fd: int, max_bytes: int) -> PulledFile:
    item = PulledFile(path, "file", os.fstat(fd), io.FileIO(fd))
    if item.size > max_bytes:
        item.close()
        raise InvalidRequest(f"{item.size} bytes, and one pull carries {max_bytes}: {shown(path)}")
    return item
