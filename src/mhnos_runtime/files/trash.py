"""What clients removed, kept for a while: one folder an item, in a folder that processes do not see.

Knows how an item is stored, and the workspace as the place where it comes from. Blocks, in steps. An item is
its record, written first, then `content`: what is without content has never been removed, or goes back.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mhnos_runtime.errors import InvalidRequest, MhnosError, NotFound, Refused, Unavailable
from mhnos_runtime.files.confine import Resolved, Workspace
from mhnos_runtime.files.copying import Copy
from mhnos_runtime.files.descent import moved, remove_tree, scan
from mhnos_runtime.files.draft import partial_name
from mhnos_runtime.files.entries import Entry, entry_at, kind_of, text_of
from mhnos_runtime.files.names import lowest
from mhnos_runtime.files.paths import PARTIAL_PREFIX, explain, require_shown, shown, spell, taken
from mhnos_runtime.files.removed import MAX_RECORD_BYTES, Record
from mhnos_runtime.files.rename import rename_back, rename_free
from mhnos_runtime.files.steps import GivenUp, Steps, to_the_end

OUTRIGHT = "remove it outright"
"""What somebody can do where the trash takes nothing."""

_RECORD, _CONTENT, _MOVING, _INCOMING = b"record.json", b"content", b"moving", b"incoming"
_ID, _GONE = re.compile(rb"[0-9a-f]{16}"), b".gone-"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BATCH = 1000
_ELSEWHERE = "name another path to restore it to"


@dataclass(frozen=True, slots=True)
class Item:
    """An item of the trash, for people. expires_ms: epoch ms."""

    id: str
    record: Record
    expires_ms: int

    @property
    def path(self) -> str:
        return text_of(os.fsencode(self.record.path))


class Trash:
    """keep_seconds: 0 for a trash that takes nothing. min_free: bytes that its disk is to have left; the
    oldest go for it. tell: called with the item that cannot be used, and why.

    Thread-safe. Ids begin with the time of their removal, so they are in its order.
    """

    def __init__(
        self,
        folder: Path,
        keep_seconds: float,
        min_free: int = 0,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._path, self._keep_seconds = folder, keep_seconds
        self.min_free, self._tell = min_free, tell
        self._lock = threading.Lock()
        self._last = 0
        # Items that this server is about to fill or has its hands in: not for the sweep.
        self._busy = set[str]()
        self._told = set[bytes]()
        # Something may be half done anywhere: by a server before this one, or since something went wrong.
        self._search = True

    @property
    def keeps(self) -> bool:
        return self._keep_seconds > 0

    # In

    def take(self, place: Resolved, path: str) -> Steps[str]:
        """Move what was resolved into the trash; its id. Raises MhnosError, and OSError of the workspace;
        then it is where it was."""
        return (
            yield from self.take_from(lambda: (place.parent_fd, place.name), os.fstat(place.fd), place, path)
        )

    def take_from(
        self, where: Callable[[], tuple[int, bytes]], status: os.stat_result, place: Resolved, path: str
    ) -> Steps[str]:
        """As `take`, of what stands elsewhere, and is to go back to `place` some day. where: called when all
        is ready, directly before it is moved; the folder that it is in, and its name."""
        item = self._begin(spell(list(place.place)), status)
        with self._open(item) as folder:
            try:
                yield from self._fill(folder, item, *where(), status, place.parent_fd, path)
            except (OSError, MhnosError, GivenUp):
                # What has arrived stays, also where its original could not be removed whole.
                if not _is_there(folder, _CONTENT):
                    yield from to_the_end(self._discard(item))
                raise
            finally:
                self._busy.discard(item)
        return item

    def _begin(self, path: str, status: os.stat_result) -> str:
        """A new item with nothing but its record, durable."""
        kind = kind_of(status.st_mode)
        size = status.st_size if kind == "file" else 0
        with self._taking(), self._top(make=True) as top:
            item = self._make(top)
            with self._open(item) as folder:
                _write(folder, _RECORD, Record(path, kind, size, int(item[:12], 16)).to_json())
                os.fsync(folder)
            os.fsync(top)
        return item

    def _make(self, top: int) -> str:
        with self._lock:
            self._last = max(self._last + 1, time.time_ns() // 1_000_000)
            item = f"{self._last:012x}{secrets.token_hex(2)}"
            self._busy.add(item)
        try:
            os.mkdir(item, 0o700, dir_fd=top)
        except BaseException:
            self._busy.discard(item)
            raise
        return item

    @contextmanager
    def _taking(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Unavailable(
                f"The trash cannot be written: {os.strerror(error.errno or 0)}", hint=OUTRIGHT, retry=False
            ) from error

    def _fill(
        self, folder: int, item: str, parent: int, name: bytes, status: os.stat_result, home: int, path: str
    ) -> Steps[None]:
        try:
            rename_free(name, _CONTENT, parent, folder)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            yield from self._carry(folder, item, parent, name, status, home, path)
            return
        _require_same(_CONTENT, folder, status, name, parent, path)
        os.fsync(folder)

    def _carry(
        self, folder: int, item: str, parent: int, name: bytes, status: os.stat_result, home: int, path: str
    ) -> Steps[None]:
        """To another file system: set aside under a name that nobody is shown, copied, then removed. A server
        that dies in between leaves what `_recover` needs to know. home: the folder where it belongs, in which
        that one looks for it."""
        aside = _aside(item)
        with self._taking():
            _write(folder, _MOVING, b"")
            os.fsync(folder)
        rename_free(name, aside, parent, home)
        _require_same(aside, home, status, name, parent, path)
        try:
            yield from self._copied(folder, home, aside, path)
        except (OSError, MhnosError, GivenUp):
            rename_back(aside, name, home, parent)
            raise
        yield from to_the_end(remove_tree(home, aside, path))
        os.unlink(_MOVING, dir_fd=folder)

    def _copied(self, folder: int, parent: int, name: bytes, path: str) -> Steps[None]:
        try:
            yield from Copy(self.min_free, None, whole=True).steps(parent, name, path, folder, _INCOMING)
            _sync_disk(folder)
            os.rename(_INCOMING, _CONTENT, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
        except (OSError, MhnosError) as error:
            why = error.message if isinstance(error, MhnosError) else explain(error, path).message
            code = error.code if isinstance(error, MhnosError) else explain(error, path).code
            raise Unavailable(
                f"Cannot be put into the trash: {why}", code=code, hint=OUTRIGHT, retry=False
            ) from error

    # What there is

    def page(
        self, before: str | None, limit: int, covers: Callable[[str], bool]
    ) -> Steps[tuple[list[Item], bool]]:
        """The latest first, of those whose place `covers` allows, and whether there are more."""
        found: list[Item] = []
        with self._using(), self._top() as top:
            while top >= 0:
                ids = yield from self._ids(top, before, latest=True)
                for item in ids:
                    record = self._read(item)
                    if record is not None and covers(record.path):
                        if len(found) == limit:
                            return found, True
                        found.append(self._item(item, record))
                    yield
                if not ids:
                    break
                before = ids[-1]
        return found, False

    def _ids(self, top: int, beyond: str | None = None, *, latest: bool = False) -> Steps[list[str]]:
        """The next ids in order of time, up to _BATCH."""
        names = (os.fsencode(entry.name) for entry in scan(top))
        ids = (name for name in names if _ID.fullmatch(name))
        found = yield from lowest(ids, beyond.encode() if beyond else None, _BATCH, reverse=latest)
        return [each.decode() for each in found]

    def _item(self, item: str, record: Record) -> Item:
        return Item(item, record, record.removed_ms + round(self._keep_seconds * 1000))

    def _read(self, item: str) -> Record | None:
        """None where it is not whole, or damaged, which is told once."""
        try:
            with self._open(item) as folder:
                if item in self._busy or not _is_there(folder, _CONTENT):
                    return None
                return Record.from_json(_contents(folder, _RECORD))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            if len(self._told) < _BATCH and item.encode() not in self._told:
                self._told.add(item.encode())
                self._tell(f"{item}: {error}")
            return None

    def _find(self, item: str, covers: Callable[[str], bool]) -> Record:
        record = self._read(item) if _ID.fullmatch(item.encode(errors="replace")) else None
        if record is None or not covers(record.path):
            raise NotFound(f"No such item in the trash: {shown(item)}", hint="listTrash shows them")
        return record

    # Out

    def restore(self, workspace: Workspace, item: str, to: str | None) -> Steps[Entry]:
        """Put an item back, or at `to`, where nothing may stand. Raises MhnosError; then it is as it was."""
        record = self._find(item, workspace.covers)
        path = record.path if to is None else to
        with (
            self._using(),
            self._open(item) as folder,
            workspace.resolve(path, make_parents=True, follow="parents") as place,
        ):
            if place.parent_fd < 0 or place.fd >= 0:
                raise taken(path, _ELSEWHERE)
            require_shown(place.name)
            self._busy.add(item)
            try:
                yield from self._restored(workspace, folder, place, path)
            except FileExistsError:
                raise taken(path, _ELSEWHERE) from None
            finally:
                self._busy.discard(item)
            fd = os.open(place.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.parent_fd)
            try:
                entry = entry_at(fd, workspace.normalise(path))
            finally:
                os.close(fd)
        with suppress(MhnosError):  # It is back, whatever becomes of the item: the sweep sees to that.
            yield from to_the_end(self._discard(item))
        return entry

    def _restored(self, workspace: Workspace, folder: int, place: Resolved, path: str) -> Steps[None]:
        try:
            rename_free(_CONTENT, place.name, folder, place.parent_fd)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            yield from self._carried_back(workspace, folder, place, path)

    def _carried_back(self, workspace: Workspace, folder: int, place: Resolved, path: str) -> Steps[None]:
        beside = partial_name()
        note = workspace.partials.begin(place.place[:-1], beside)
        try:
            copy = Copy(workspace.min_free, None, whole=True, made=note.made)
            yield from copy.steps(folder, _CONTENT, path, place.parent_fd, beside)
            _sync_disk(place.parent_fd)
            rename_free(beside, place.name, place.parent_fd, place.parent_fd)
        except (OSError, MhnosError, GivenUp):
            if _is_there(place.parent_fd, beside):
                yield from to_the_end(remove_tree(place.parent_fd, beside, path, force=True))
            note.end()
            raise
        note.end()

    def empty(self, items: Sequence[str] | None, covers: Callable[[str], bool]) -> Steps[int]:
        """Remove these, or all, for ever: those whose place `covers` allows. How many."""
        count = 0
        if items is not None:
            for item in items:
                self._find(item, covers)
                yield from self._discard(item)
                count += 1
            return count
        before = None
        with self._using(), self._top() as top:
            while top >= 0:
                ids = yield from self._ids(top, before)
                for item in ids:
                    record = self._read(item)
                    if record is not None and covers(record.path):
                        yield from self._discard(item)
                        count += 1
                if not ids:
                    break
                before = ids[-1]
        return count

    def _discard(self, item: str) -> Steps[None]:
        """Out of sight at once, then gone. Raises Unavailable."""
        with self._using(), self._top() as top:
            gone = _GONE + item.encode()
            with suppress(FileNotFoundError):
                os.rename(item, gone, src_dir_fd=top, dst_dir_fd=top)
                yield from remove_tree(top, gone, "the trash", force=True)

    # By and by

    def sweep(self, workspace: Workspace) -> Steps[None]:
        """Remove what has expired, the oldest also where the disk is too full; finish what a server has left
        half done. What goes wrong with one item is told, and the others go on."""
        with self._top() as top:
            if top < 0:
                return
            for entry in scan(top):
                if entry.name.startswith(_GONE.decode()):
                    yield from self._telling(
                        entry.name, remove_tree(top, os.fsencode(entry.name), "the trash", force=True)
                    )
                yield
            before, self._search, search = None, False, self._search
            while True:
                ids = yield from self._ids(top, before)
                for item in ids:
                    if not (search or self._has_expired(item) or self._crowded(top)):
                        return  # Those that follow are younger.
                    yield from self._telling(item, self._look_after(top, item, workspace))
                if not ids:
                    return
                before = ids[-1]

    def _telling(self, item: str, steps: Steps[None]) -> Steps[None]:
        try:
            yield from steps
        except FileNotFoundError:
            pass  # Somebody else has removed it.
        except OSError as error:
            self._search = True
            self._tell(f"{item}: {error.strerror}")
        except MhnosError as error:
            self._search = True
            self._tell(f"{item}: {error.message}")

    def _look_after(self, top: int, item: str, workspace: Workspace) -> Steps[None]:
        yield
        if item in self._busy:
            return
        with self._open(item) as folder:
            whole = _is_there(folder, _CONTENT)
            if _is_there(folder, _MOVING):
                yield from self._recover(folder, item, workspace)
        if not whole or self._has_expired(item) or self._crowded(top):
            yield from self._discard(item)

    def _has_expired(self, item: str) -> bool:
        return int(item[:12], 16) + self._keep_seconds * 1000 < time.time() * 1000

    def _crowded(self, top: int) -> bool:
        disk = os.fstatvfs(top)
        return disk.f_bavail * disk.f_frsize < self.min_free

    def _recover(self, folder: int, item: str, workspace: Workspace) -> Steps[None]:
        """What was on its way to another file system: done to the end if it has arrived, else put back.
        Raises Unavailable where that cannot be done at the moment."""
        arrived = _is_there(folder, _CONTENT)
        with suppress(ValueError, NotFound, Refused, InvalidRequest, FileNotFoundError):
            record = Record.from_json(_contents(folder, _RECORD))
            with workspace.resolve(record.path, follow="parents") as place:
                aside = _aside(item)
                if _is_there(place.parent_fd, aside):
                    if arrived:
                        yield from remove_tree(place.parent_fd, aside, record.path)
                    else:
                        rename_back(aside, place.name, place.parent_fd, place.parent_fd)
        if arrived:
            os.unlink(_MOVING, dir_fd=folder)

    # The folder

    @contextmanager
    def _using(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise NotFound("It is not in the trash any more", hint="listTrash shows what is") from error
        except OSError as error:
            self._search = True
            raise Unavailable(f"The trash cannot be used: {os.strerror(error.errno or 0)}") from error

    @contextmanager
    def _top(self, *, make: bool = False) -> Iterator[int]:
        """The folder of all items, open; -1 where there is none."""
        if make:
            self._path.mkdir(0o700, parents=True, exist_ok=True)
        try:
            fd = os.open(self._path, _FOLDER)
        except FileNotFoundError:
            yield -1
            return
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _open(self, item: str) -> Iterator[int]:
        with self._top() as top:
            if top < 0:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            fd = os.open(item, _FOLDER, dir_fd=top)
        try:
            yield fd
        finally:
            os.close(fd)


def _aside(item: str) -> bytes:
    """Beside the place of something that is on its way to another file system."""
    return f"{PARTIAL_PREFIX}trash-{item}".encode()


def _require_same(
    name: bytes, folder: int, status: os.stat_result, old: bytes, old_folder: int, path: str
) -> None:
    """What was renamed goes back where it is not what was meant: a program has exchanged it meanwhile."""
    if not os.path.samestat(os.stat(name, dir_fd=folder, follow_symlinks=False), status):
        rename_back(name, old, folder, old_folder)
        raise moved(path)


def _write(folder: int, name: bytes, data: bytes) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)


def _contents(folder: int, name: bytes) -> bytes:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError("the record is no file")
        return os.read(fd, MAX_RECORD_BYTES)
    finally:
        os.close(fd)


def _is_there(folder: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _sync_disk(fd: int) -> None:
    """All that was written to a file system, since one call a file would take minutes for a large tree."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    folder = os.open(".", _FOLDER, dir_fd=fd)
    try:
        if call is None:
            os.sync()
        elif call(folder):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(folder)
