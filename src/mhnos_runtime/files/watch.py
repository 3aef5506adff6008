"""Changes below a directory: the kernel's news of it, and a table of what is there, with which every look
compares. Blocks, in steps of a few ms. Knows no event loop and no client.

The table is the truth. News only says where to look, so their order and loss change nothing in the end: what
a look finds is compared, and a scan looks everywhere. A directory is watched before it is listed, so that
what comes meanwhile is in the one or the other. Looking causes no news.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Literal

from mhnos_runtime.errors import LimitReached, MhnosError, NotFound
from mhnos_runtime.files import inotify
from mhnos_runtime.files.changes import Change, Changes, What
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.ignore import Ignore
from mhnos_runtime.files.inotify import Event, Inotify
from mhnos_runtime.files.paths import MAX_PATH_BYTES, PARTIAL_PREFIX, explain, normalise, parts, shown, spell
from mhnos_runtime.files.version import is_settled, tick_ns
from mhnos_runtime.files.watchtable import (
    FILE_BYTES,
    FOLDER_BYTES,
    Budget,
    Folder,
    identity_of,
    kind_in,
    mark_of,
    version_in,
)

#: Names that are looked at in one step: some ms.
STEP_NAMES = 64
#: Reads of the queue before what they told is handed on: more than the queue holds by default.
MAX_READS = 64
#: Names that wait for the next tick of the clock; beyond that, a scan finds what became of them.
MAX_YOUNG = 10_000

_ENTER = os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PARTIAL = PARTIAL_PREFIX.encode()
#: What the kernel's news call a file that has no name yet (O_TMPFILE; d_mark_tmpfile in its fs/dcache.c): its
#: inode number. A file that really has such a name is looked at like any other.
_UNNAMED = re.compile(rb"#\d+\Z")
#: The user's watches are used up, or the kernel's memory for them.
_NO_WATCHES = (errno.ENOSPC, errno.ENOMEM)
#: A directory was not seen because the machine lacked something, not because of what it is.
_NOT_SEEN = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO)


class FileWatch:
    """One directory's. `begin` first; then `take` when `inotify` is readable, and `scan` now and then. Each
    gives its steps, and raises NotFound where the directory is not at its path any more, LimitReached where
    there is too much below it.

    Not for several threads at once; between two steps `changes` may be taken, and another of its generators
    may be advanced. It holds no directory open between steps but in an unfinished generator.
    """

    def __init__(self, workspace: Workspace, path: str, ignore: Sequence[str], budget: Budget) -> None:
        """ignore: lines as in .gitignore, from the watched directory. Raises as `normalise` does."""
        self.path = normalise(path)
        self._workspace, self._names, self._lines = workspace, parts(path), ignore
        self._ignore = Ignore.of(())
        self._budget, self._held = budget, 0
        self._inotify: Inotify | None = None
        self._root = Folder(None, b"", (0, 0))
        self._watched: dict[int, Folder] = {}
        self._dirty: dict[Folder, dict[bytes, bool]] = {}
        self._new: list[Folder] = []
        self._gone: list[Folder] = []
        self._begun = False
        self._changes = Changes()
        #: Names that had changed in the tick of the clock in which they were looked at: a further change
        #: would not show in the version.
        self.young: dict[tuple[Folder, bytes], None] = {}
        #: News were lost: scan soon.
        self.lost = False
        #: Names are known. Otherwise there are too many of them, and each change is only a hint to look.
        self.exact = True
        #: Why changes are found by looking alone.
        self.unwatched: OSError | None = None

    @property
    def by(self) -> Literal["inotify", "polling"]:
        return "polling" if self.unwatched else "inotify"

    def fileno(self) -> int:
        """Readable when there are news; -1 where there never are."""
        return -1 if self._inotify is None else self._inotify.fileno()

    def taken(self) -> Changes:
        """What was found since the last time."""
        found, self._changes = self._changes, Changes()
        return found

    def close(self) -> None:
        if self._inotify is not None:
            self._inotify.close()
        self._budget.give(self._held)
        self._held = 0

    # What is done in steps

    def begin(self) -> Iterator[None]:
        """Learn what is there. Raises MhnosError."""
        self._ignore = Ignore.of(self._lines)
        root = self._workspace.open_dir(self.path)
        try:
            self._root.identity = identity_of(os.fstat(root))
        finally:
            os.close(root)
        try:
            self._inotify = Inotify()
        except OSError as error:
            self._poll(error)
        self._watch_above()
        self._new.append(self._root)
        yield from self._enter_new()
        self._begun = True

    def take(self) -> Iterator[None]:
        """Look where the kernel says that something has happened."""
        os.close(self._open_root())
        for _ in range(MAX_READS):
            events = [] if self._inotify is None else self._inotify.read()
            for event in events:
                self._note(event)
            yield from self._look_at_dirty()
            if not events:
                break

    def settle(self) -> Iterator[None]:
        """Look once more at what is `young`, a tick later. It may be young again."""
        young, self.young = self.young, {}
        for folder, name in young:
            self._dirty.setdefault(folder, {})[name] = False
        yield from self._look_at_dirty()

    def scan(self) -> Iterator[None]:
        """Compare everything."""
        os.close(self._open_root())
        lost, self.lost = self.lost, False
        todo = [self._root]
        while todo:
            folder = todo.pop()
            yield from self._list(folder)
            yield from self._enter_new()
            todo += folder.folders.values()
        if lost or (self.unwatched and not self.exact):
            # Who listed a directory before it was watched may have seen what was gone by then.
            self._changes.look_again()

    # Directories, by descriptor

    def _open_root(self) -> int:
        """The watched directory, if it still is at its path."""
        try:
            fd = self._workspace.open_dir(self.path)
        except MhnosError as error:
            if error.retry:
                raise
            raise _gone(self.path) from None
        status = os.fstat(fd)
        if status.st_nlink and identity_of(status) == self._root.identity:
            return fd
        os.close(fd)
        raise _gone(self.path)

    def _open(self, folder: Folder) -> int:
        """A directory of the table, step by step, through no link. Raises OSError, also where it has gone."""
        names = folder.names()
        if names is None:
            raise FileNotFoundError
        fd = self._open_root()
        for name in names:
            try:
                deeper = os.open(name, _ENTER, dir_fd=fd)
            finally:
                os.close(fd)
            fd = deeper
        if identity_of(os.fstat(fd)) != folder.identity:
            os.close(fd)
            raise FileNotFoundError
        return fd

    def _enter_new(self) -> Iterator[None]:
        while self._new:
            yield from self._list(self._new.pop())
        while self._gone:
            for folder in self._gone.pop().all():
                self._unwatch(folder)
                yield

    def _list(self, folder: Folder) -> Iterator[None]:
        """Watch it, then look at everything in it, and at everything that was in it."""
        try:
            fd = self._open(folder)
        except OSError as error:
            self.lost |= error.errno in _NOT_SEEN
            return
        try:
            self._watch(folder, fd)
            listing = os.open(".", _LIST, dir_fd=fd)
        except OSError as error:
            os.close(fd)
            if folder is self._root:
                raise explain(error, self.path) from error
            self.lost |= error.errno in _NOT_SEEN
            folder.closed = True
            return
        folder.closed = False
        try:
            yield from self._compare(folder, fd, listing)
        finally:
            os.close(fd)
            os.close(listing)

    def _compare(self, folder: Folder, fd: int, listing: int) -> Iterator[None]:
        missing = {*folder.files, *folder.folders}
        with os.scandir(listing) as entries:
            for number, entry in enumerate(entries, 1):
                name = os.fsencode(entry.name)
                missing.discard(name)
                if self.exact or entry.is_dir(follow_symlinks=False):
                    self._look(folder, fd, name)
                if number % STEP_NAMES == 0:
                    yield
                    if folder.names() is None:
                        return
        for name in missing:
            self._look(folder, fd, name)
        yield

    # News

    def _note(self, event: Event) -> None:
        if event.mask & inotify.OVERFLOW:
            self.lost = True
        folder = self._watched.get(event.watch)
        if folder is None or event.name.startswith(_PARTIAL):
            return
        if event.mask & inotify.IGNORED:
            # Removed by the kernel: the directory was deleted, or its file system unmounted.
            del self._watched[event.watch]
            folder.watch, folder.lost = -1, True
            if folder.parent is not None:
                self._dirty.setdefault(folder.parent, {})[folder.name] = True
        elif event.name:
            self._dirty.setdefault(folder, {})[event.name] = bool(event.mask & inotify.IS_DIRECTORY)

    def _look_at_dirty(self) -> Iterator[None]:
        while self._dirty:
            folder, names = self._dirty.popitem()
            try:
                fd = self._open(folder)
            except OSError as error:
                # Else the news of a directory above it say what became of it.
                self.lost |= error.errno in _NOT_SEEN
                continue
            try:
                for number, (name, was_directory) in enumerate(names.items(), 1):
                    self._look(folder, fd, name, was_directory)
                    if number % STEP_NAMES == 0:
                        yield
            finally:
                os.close(fd)
            yield
        yield from self._enter_new()

    # One name

    def _look(self, folder: Folder, fd: int, name: bytes, was_directory: bool = False) -> None:
        """Compare what has this name with what the table has. was_directory: of what is gone."""
        now_ns, status = tick_ns(), _status(name, fd)
        is_directory = was_directory if status is None else stat.S_ISDIR(status.st_mode)
        known = name in (folder.folders if is_directory else folder.files)
        if not known and self._passes_over(folder, name, is_directory):
            self._remove(folder, name)
        elif status is None:
            if not self._remove(folder, name) and not _UNNAMED.match(name):
                # It came and went; somebody who has listed it has to know.
                self._tell(folder, name, Change("removed", "directory" if is_directory else "file"))
        elif is_directory:
            self._look_at_folder(folder, name, status)
        else:
            settled = is_settled(status, now_ns)
            if not settled:
                self._is_young(folder, name)
            self._look_at_file(folder, name, mark_of(status, settled))

    def _look_at_folder(self, folder: Folder, name: bytes, status: os.stat_result) -> None:
        child = folder.folders.get(name)
        if child is not None and child.identity == identity_of(status) and not child.lost:
            if child.closed:
                self._new.append(child)
            return
        self._remove(folder, name)
        if not self._hold(FOLDER_BYTES + len(name)):
            self._shrink()
            if not self._hold(FOLDER_BYTES + len(name)):
                raise LimitReached(
                    f"Too many directories are below it to be watched: {shown(self.path)}",
                    hint="watch a directory below it, or ignore more",
                    retry=False,
                )
        child = Folder(folder, name, identity_of(status))
        folder.folders[name] = child
        self._new.append(child)
        self._tell(folder, name, Change("created", "directory"))

    def _look_at_file(self, folder: Folder, name: bytes, mark: bytes) -> None:
        if name in folder.folders:
            self._remove(folder, name)
        old = folder.files.get(name)
        if old == mark:
            return
        if old is None and self.exact and not self._hold(FILE_BYTES + len(name)):
            self._shrink()
        if self.exact:
            folder.files[name] = mark
        what: What = "created" if old is None else "changed"
        self._tell(folder, name, Change(what, kind_in(mark), version_in(mark)))

    def _is_young(self, folder: Folder, name: bytes) -> None:
        if len(self.young) < MAX_YOUNG:
            self.young[folder, name] = None
        else:
            self.lost = True

    def _remove(self, folder: Folder, name: bytes) -> bool:
        """Whether the table had it."""
        child, mark = folder.folders.get(name), folder.files.pop(name, None)
        if child is not None:
            self._tell(folder, name, Change("removed", "directory"))
            self._gone.append(folder.folders.pop(name))
        if mark is not None:
            self._release(FILE_BYTES + len(name))
            self._tell(folder, name, Change("removed", kind_in(mark)))
        return child is not None or mark is not None

    def _tell(self, folder: Folder, name: bytes, change: Change) -> None:
        names = folder.names() if self._begun else None
        if names is None:
            return
        if self.exact:
            self._changes.add(spell([*self._names, *names, name]), change)
        else:
            self._changes.look_again()

    def _passes_over(self, folder: Folder, name: bytes, is_directory: bool) -> bool:
        names = folder.names()
        if names is None or name.startswith(_PARTIAL):
            return True
        path = b"/".join([*names, name])
        if len(path) + len(self.path) > MAX_PATH_BYTES:
            return True  # No request can name it.
        return bool(self._ignore.says(os.fsdecode(path), is_directory))

    # The kernel's watches

    def _watch(self, folder: Folder, fd: int) -> None:
        """Raises OSError where the directory may not be read."""
        if self._inotify is None or folder.watch >= 0:
            return
        mask = inotify.NAMES | (inotify.ITSELF if folder is self._root else 0)
        try:
            watch = self._inotify.add(fd, mask)
        except OSError as error:
            if error.errno not in _NO_WATCHES:
                raise
            self._poll(error)
            return
        moved = self._watched.get(watch)
        if moved is not None:
            moved.watch = -1
        folder.watch, self._watched[watch] = watch, folder

    def _watch_above(self) -> None:
        """Hear of it when a directory above is moved. What cannot be watched is seen by the next scan."""
        for end in range(len(self._names)):
            with suppress(MhnosError, OSError):
                fd = self._workspace.open_dir(spell(self._names[:end]))
                try:
                    if self._inotify is not None:
                        self._inotify.add(fd, inotify.MOVE_SELF | inotify.MORE)
                finally:
                    os.close(fd)

    def _unwatch(self, folder: Folder) -> None:
        """It is not part of the table any more."""
        self._release(FOLDER_BYTES + len(folder.name) + _size(folder))
        if self._inotify is not None and self._watched.get(folder.watch) is folder:
            del self._watched[folder.watch]
            with suppress(OSError):  # The kernel may have been faster.
                self._inotify.remove(folder.watch)

    def _poll(self, error: OSError) -> None:
        """Go on without the kernel's news, which would be of a part only."""
        if self._inotify is not None:
            self._inotify.close()
        self._inotify, self.unwatched = None, error
        self._watched.clear()
        self.lost = self._begun

    # Memory

    def _hold(self, size: int) -> bool:
        if not self._budget.take(size):
            return False
        self._held += size
        return True

    def _release(self, size: int) -> None:
        self._budget.give(size)
        self._held -= size

    def _shrink(self) -> None:
        """Forget the files: there are more than may be known."""
        self.exact = False
        for folder in self._root.all():
            self._release(_size(folder))
            folder.files.clear()
        if self._begun:
            self._changes.look_again()


def _size(folder: Folder) -> int:
    """Of the files in it."""
    return FILE_BYTES * len(folder.files) + sum(map(len, folder.files))


def _status(name: bytes, fd: int) -> os.stat_result | None:
    """None also where nobody can look."""
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False)
    except OSError:
        return None


def _gone(path: str) -> NotFound:
    return NotFound(f"The directory was removed, moved or replaced: {shown(path)}", hint="watch it again")
