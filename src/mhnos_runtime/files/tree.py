"""What clients do with files beside their content: list, look, make, move, copy and remove, in steps.

Knows paths through Workspace, and the trash; must not know who asks, or how it is answered.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import filterfalse

from mhnos_runtime.errors import Conflict, InvalidRequest, MhnosError
from mhnos_runtime.files.confine import Resolved, Workspace, reopen
from mhnos_runtime.files.copying import Copied, Copy
from mhnos_runtime.files.create import make_new_dir
from mhnos_runtime.files.descent import remove_tree, scan
from mhnos_runtime.files.draft import Condition, partial_name, stat_at
from mhnos_runtime.files.entries import Entry, entry_at, entry_of
from mhnos_runtime.files.names import lowest
from mhnos_runtime.files.partials import Partial
from mhnos_runtime.files.paths import PARTIAL_PREFIX, explain, require_shown, shown, taken
from mhnos_runtime.files.rename import exchange, rename_back, rename_free
from mhnos_runtime.files.space import require_space
from mhnos_runtime.files.steps import GivenUp, Steps, to_the_end
from mhnos_runtime.files.trash import Trash
from mhnos_runtime.files.version import settled, settled_all, version_of

MAX_PAGE_BYTES = 1 << 20
"""Of the paths and targets in one page: what may wait for a client that does not read."""

HASHED_BYTES = 1 << 20
"""Read and hashed in one step: a millisecond or two."""

MAX_HASHINGS = 3
"""Times that a file is read which changes meanwhile."""

_STEP_ENTRIES = 100
_is_partial = re.compile(re.escape(PARTIAL_PREFIX.encode())).match


@dataclass(frozen=True, slots=True)
class Page:
    """Entries of a directory by name; after: the last name looked at, where there are more."""

    path: str
    entries: list[Entry]
    after: bytes | None = None


@dataclass(frozen=True, slots=True)
class Moved:
    """trash: under this id is what stood there."""

    entry: Entry
    trash: str | None = None


def list_page(workspace: Workspace, path: str, after: bytes | None, limit: int) -> Steps[Page]:
    """The next `limit` entries of a directory, in order of their names' bytes. In memory are four times as
    many names at most, however many there are."""
    folder = workspace.normalise(path)
    fd = workspace.open_dir(path, listing=True)
    try:
        # The error handler of os.fsencode, without its call: this is done for each of a million names.
        names = (entry.name.encode("utf-8", "surrogateescape") for entry in scan(fd))
        found = yield from lowest(filterfalse(_is_partial, names), after, limit + 1)
        page = found[:limit]
        entries, count = yield from _entries(fd, folder, page)
        more = count < len(page) or len(found) > limit
        return Page(folder, entries, page[count - 1] if more else None)
    except OSError as error:
        raise explain(error, path) from error
    finally:
        os.close(fd)


def _entries(fd: int, folder: str, names: Sequence[bytes]) -> Steps[tuple[list[Entry], int]]:
    """Of these names those that still are there, and how many names were looked at: all, or as many as fill a
    page."""
    entries: list[Entry] = []
    size = count = 0
    for first in range(0, len(names), _STEP_ENTRIES):
        some = names[first : first + _STEP_ENTRIES]
        for name, status in zip(some, settled_all(lambda each: stat_at(each, fd), some), strict=True):
            count += 1
            if status is not None:
                entry = entry_of(status, _below(folder, name), _target(fd, name, status))
                entries.append(entry)
                size += len(entry.path) + len(entry.target or "")
            if size > MAX_PAGE_BYTES:
                return entries, count
        yield
    return entries, count


def _below(folder: str, name: bytes) -> str:
    return folder.rstrip("/") + "/" + os.fsdecode(name)


def _target(fd: int, name: bytes, status: os.stat_result) -> bytes | None:
    if not stat.S_ISLNK(status.st_mode):
        return None
    try:
        return os.readlink(name, dir_fd=fd)
    except OSError:
        return b""  # it is another file by now


def look(
    workspace: Workspace, path: str, *, follow: bool = True, sha256: bool = False
) -> Steps[tuple[Entry, str | None]]:
    """What stands at a path, and the SHA-256 of its content if it is a file and that is wanted, in
    hexadecimal. Raises Conflict (changed) for one that does not stop changing."""
    told = workspace.normalise(path)
    with workspace.resolve(path, follow=follow or "parents") as place:
        _require_there(place)
        entry = entry_at(place.fd, told)
        if not sha256 or entry.kind != "file":
            return entry, None
        fd = reopen(place, os.O_RDONLY)
        try:
            for _ in range(MAX_HASHINGS):
                entry = entry_at(fd, told)
                digest = yield from _hash(fd)
                if version_of(os.fstat(fd)) == entry.version:
                    return entry, digest
        finally:
            os.close(fd)
    raise Conflict(f"It keeps changing: {shown(path)}", hint="try again when nothing writes it")


def _hash(fd: int) -> Steps[str]:
    digest, position = hashlib.sha256(), 0
    while piece := os.pread(fd, HASHED_BYTES, position):
        digest.update(piece)
        position += len(piece)
        yield
    return digest.hexdigest()


def make_directory(workspace: Workspace, path: str, *, parents: bool = False) -> Steps[Entry]:
    """parents: make those that are missing, too; then it may be there already. Raises Conflict."""
    if parents:
        workspace.make_dirs(path)
    else:
        with workspace.resolve(path, follow="parents") as place:
            _require_free(place, path)
            require_shown(place.name)
            require_space(place.parent_fd, workspace.min_free)
            try:
                make_new_dir(place.name, place.parent_fd)
            except FileExistsError:
                raise taken(path) from None
    yield
    with workspace.resolve(path) as place:
        _require_there(place)
        return entry_at(place.fd, workspace.normalise(path))


def move(
    workspace: Workspace,
    trash: Trash,
    source: str,
    target: str,
    *,
    replace: bool = False,
    condition: Condition,
) -> Steps[Moved]:
    """Give what stands at `source` another path. replace: what stands there goes to the trash, in one step;
    else Conflict (already-exists) is raised."""
    with workspace.resolve(source, follow="parents") as old:
        _require_movable(old, source)
        condition.check(os.fstat(old.fd), source)
        with workspace.resolve(target, follow="parents") as new:
            _require_apart(old, new, source, target)
            trashed = None
            if old.place != new.place:
                trashed = yield from _put(trash, old.parent_fd, old.name, new, target, replace=replace)
            return Moved(_entry_in(new, workspace.normalise(target)), trashed)


def copy(
    workspace: Workspace, trash: Trash, source: str, target: str, *, replace: bool = False
) -> Steps[tuple[Moved, Copied]]:
    """Copy a file, a link, or a directory with what is in it. It appears whole, or not at all; replace: as
    for move."""
    with workspace.resolve(source, follow="parents") as old:
        _require_there(old)
        if not (stat.S_ISREG(old.mode) or stat.S_ISDIR(old.mode) or stat.S_ISLNK(old.mode)):
            raise InvalidRequest(f"Neither file, directory nor link: {shown(source)}")
        with workspace.resolve(target, follow="parents") as new:
            _require_apart(old, new, source, target)
            if old.place == new.place:
                raise taken(target)
            if not replace:
                _require_free(new, target)
            return (yield from _copied(workspace, trash, source, target, old, new, replace=replace))


def _copied(
    workspace: Workspace,
    trash: Trash,
    source: str,
    target: str,
    old: Resolved,
    new: Resolved,
    *,
    replace: bool,
) -> Steps[tuple[Moved, Copied]]:
    """Beside its target, then renamed."""
    beside = partial_name()
    note = workspace.partials.begin(new.place[:-1], beside)
    folder = os.fstat(new.parent_fd)
    copying = Copy(workspace.min_free, (folder.st_uid, folder.st_gid), made=note.made)
    from_parent, name = (old.parent_fd, old.name) if old.parent_fd >= 0 else (old.fd, b".")
    made = None
    try:
        yield from copying.steps(from_parent, name, source, new.parent_fd, beside)
        made = stat_at(beside, new.parent_fd)
        if made is None:
            why = copying.done.skipped[0][1] if copying.done.skipped else "it has gone"
            raise InvalidRequest(f"It cannot be copied: {why}")
        trashed = yield from _put(trash, new.parent_fd, beside, new, target, replace=replace, note=note)
    except (OSError, MhnosError, GivenUp):
        left = stat_at(beside, new.parent_fd)
        # Never what stood at the target, which has this name for a moment.
        if left is not None and (made is None or os.path.samestat(left, made)):
            yield from to_the_end(remove_tree(new.parent_fd, beside, target, force=True))
        note.end()
        raise
    note.end()
    return Moved(_entry_in(new, workspace.normalise(target)), trashed), copying.done


def _put(
    trash: Trash,
    parent: int,
    name: bytes,
    new: Resolved,
    target: str,
    *,
    replace: bool,
    note: Partial | None = None,
) -> Steps[str | None]:
    """Rename onto a path that is free; or exchange the two, and put what stood there into the trash. note: of
    a partial name."""
    for _ in range(2):
        try:
            rename_free(name, new.name, parent, new.parent_fd)
            return None
        except FileExistsError:
            if not replace:
                raise taken(target) from None
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise _elsewhere(target) from None
            raise
        stood = stat_at(new.name, new.parent_fd)
        if stood is not None:
            return (yield from _replace(trash, parent, name, new, stood, target, note))
    raise taken(target)


def _replace(
    trash: Trash,
    parent: int,
    name: bytes,
    new: Resolved,
    stood: os.stat_result,
    target: str,
    note: Partial | None,
) -> Steps[str | None]:
    exchanged = False

    def where() -> tuple[int, bytes]:
        nonlocal exchanged
        if note is not None:
            note.exchanged(new.name if trash.keeps else b"", stood)
        exchanged = exchange(name, new.name, parent, new.parent_fd)
        return (parent, name) if exchanged else (new.parent_fd, new.name)

    try:
        item = yield from _away(trash, where, stood, new, target)
    except (OSError, MhnosError, GivenUp):
        if exchanged and trash.keeps:
            _exchange_back(parent, name, new)
        raise
    if not exchanged:
        # A file system that cannot: for a moment there is nothing at the path, and nothing is lost.
        rename_free(name, new.name, parent, new.parent_fd)
    return item


def _exchange_back(parent: int, name: bytes, new: Resolved) -> None:
    try:
        exchange(name, new.name, parent, new.parent_fd)
    except OSError:
        # A program has taken one of the two away: what stood there goes back alone, or beside.
        if stat_at(name, parent) is not None:
            rename_back(name, new.name, parent, new.parent_fd)


def _away(
    trash: Trash, where: Callable[[], tuple[int, bytes]], stood: os.stat_result, place: Resolved, path: str
) -> Steps[str | None]:
    """where: see Trash.take_from."""
    if trash.keeps:
        return (yield from trash.take_from(where, stood, place, path))
    yield from to_the_end(remove_tree(*where(), path))
    return None


def remove(
    workspace: Workspace,
    trash: Trash,
    path: str,
    *,
    recursive: bool = False,
    outright: bool = False,
    condition: Condition,
) -> Steps[str | None]:
    """Put what stands at a path into the trash; its id there. outright, or where the trash keeps nothing: it
    is gone, and None. recursive: also a directory that has something in it."""
    with workspace.resolve(path, follow="parents") as place:
        _require_movable(place, path)
        status = os.fstat(place.fd)
        condition.check(status, path)
        if stat.S_ISDIR(place.mode) and not recursive:
            _require_empty(place, path)
        if not outright and trash.keeps:
            return (yield from trash.take(place, path))
        yield from remove_tree(place.parent_fd, place.name, path, expected=status)
        return None


def _require_there(place: Resolved) -> None:
    if place.fd < 0:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _require_free(place: Resolved, path: str) -> None:
    if place.fd >= 0:
        raise taken(path)


def _require_movable(place: Resolved, path: str) -> None:
    _require_there(place)
    if place.parent_fd < 0:
        raise InvalidRequest(
            f"Neither the workspace nor a grant's folder can be moved or removed: {shown(path)}",
            hint="name what is in it, one by one",
        )


def _require_apart(old: Resolved, new: Resolved, source: str, target: str) -> None:
    """Neither in the other; and the new one where it is shown."""
    if new.parent_fd < 0:
        raise taken(target)
    if old.place != new.place and new.place[: len(old.place)] == old.place:
        raise InvalidRequest(f"A directory cannot go into itself: {shown(source)}")
    if old.place != new.place and old.place[: len(new.place)] == new.place:
        raise InvalidRequest(f"What it would replace is a directory that it is in: {shown(target)}")
    require_shown(new.name)


def _require_empty(place: Resolved, path: str) -> None:
    for _ in scan(place.fd):
        raise InvalidRequest(
            f"Directory not empty: {shown(path)}", code="not-empty", hint="recursive removes what is in it"
        )


def _elsewhere(path: str) -> InvalidRequest:
    return InvalidRequest(
        f"On another file system: {shown(path)}",
        code="other-file-system",
        hint="copy it there, then remove it",
    )


def _entry_in(place: Resolved, path: str) -> Entry:
    """What stands at a place that was just given something."""

    def status() -> os.stat_result:
        return os.stat(place.name, dir_fd=place.parent_fd, follow_symlinks=False)

    found = settled(status)
    return entry_of(found, path, _target(place.parent_fd, place.name, found))
