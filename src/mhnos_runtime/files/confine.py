"""The one place that turns a client's path into an open file. Knows the root and the kernel's *at calls.

Must not know who asks or why. A string proves nothing; only the descriptor that a walk ends at counts.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal, Self, TypeAlias

from mhnos_runtime.errors import InvalidRequest, Refused, Unavailable
from mhnos_runtime.files.create import create_exclusive, make_new_dir
from mhnos_runtime.files.partials import Partials
from mhnos_runtime.files.paths import (
    explain,
    names_of,
    normalise,
    outside,
    parts,
    require_shown,
    shown,
    spell,
)

MAX_LINKS = 40
"""Symbolic links followed in one resolution, as the kernel does (path_resolution(7))."""

MAX_STEPS = 4096
"""Components opened in one resolution: twice what a path may name. Each `..` in a link restarts the walk;
this bound ends it within some 5 ms."""

MAX_CREATE_RACES = 64
"""Attempts when a name appears or vanishes between check and creation; then the caller gets an error."""

_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: otherwise another process's lease makes open wait (fs.lease-break-time, 45 s).
_ALWAYS = os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


Follow: TypeAlias = bool | Literal["parents"]


@dataclass(slots=True)
class StepBudget:
    """How many of MAX_STEPS are left to resolutions of one request."""

    left: int = MAX_STEPS


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a path resolved to. The descriptors are O_PATH and belong to the `resolve` that yields it.

    parent_fd: the directory that holds `name`; -1 for the top of the workspace.
    fd, mode: the file itself and its st_mode; -1 and 0 if it does not exist.
    place: its names from the top of the workspace, without links.
    """

    parent_fd: int
    name: bytes
    fd: int
    mode: int
    place: tuple[bytes, ...] = ()


class Workspace:
    """The folder that processes and clients share, held open so that the folder itself may be moved.

    Where it cannot be opened, all that needs it is Unavailable, and each use tries again: a server must
    come up for the processes that run, whatever became of the folder.

    Thread-safe; close it only when no thread is in a call. Every method that takes a client's path raises
    InvalidRequest, NotFound, Refused (code outside-workspace, or permission), LimitReached (disk) or
    Unavailable, and names the path as the client knows it.
    """

    normalise = staticmethod(normalise)

    def __init__(
        self, root: str | os.PathLike[str], min_free: int = 0, partials: Partials | None = None
    ) -> None:
        """Opens `root` and follows links in it, since it is the operator's path. min_free: bytes of its disk
        that clients leave free. partials: where it is noted what is being written in it; None: nowhere."""
        self.root, self.min_free = os.fspath(root), min_free
        self.partials = partials or Partials(None)
        self._fd, self._closed = -1, False
        self._opening = threading.Lock()
        with suppress(Unavailable):
            self._top()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._closed = -1, True

    def is_in_place(self) -> bool:
        """False where the folder was moved, or removed, whatever stands at its path now."""
        try:
            return os.path.samestat(os.stat(self.root), os.fstat(self._top()))
        except (FileNotFoundError, Unavailable):
            return False
        except OSError:
            return True  # its parents are closed to this process

    def _top(self) -> int:
        """The descriptor of the folder. Raises Unavailable."""
        with self._opening:
            if self._fd < 0 and not self._closed:
                try:
                    self._fd = os.open(self.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                except OSError as error:
                    raise Unavailable(
                        f"The workspace {self.root} cannot be opened: {error.strerror}",
                        hint="put the folder there again",
                    ) from None
            return self._fd

    @contextmanager
    def resolve(
        self,
        path: str,
        base: str = "/",
        *,
        make_parents: bool = False,
        follow: Follow = True,
        steps: StepBudget | None = None,
    ) -> Iterator[Resolved]:
        """Resolve `path`. Its parents must exist, the file itself need not. `follow`: whether links are;
        "parents": those in the middle, and the last name is itself.

        The descriptors are open only inside the `with`. An OSError in the block is raised as `explain` maps
        it.
        """
        walk = None
        try:
            with self._start(parts(path, base), path, make_parents) as (start, before, rest):
                walk = _Walk(start, before, rest, path, make_parents, follow, steps or StepBudget())
                yield walk.run()
        except OSError as error:
            raise explain(error, path) from error
        finally:
            if walk is not None:
                walk.close()

    def limited(self, folders: Sequence[str]) -> Workspace:
        """The same workspace for somebody who may have these folders of it alone: paths are written from the
        top of the workspace as ever, and links may not lead out of the folder that a path begins with."""
        return _Limited(self, folders)

    def below(self, path: str) -> Workspace:
        """The directory at this path, which must exist, as a workspace of its own: no link leads out of it.
        The caller closes it."""
        return _Below(self.open_dir(path), self)

    def covers(self, path: str) -> bool:
        """Whether a path of `spell` is in this workspace's reach, whatever stands there."""
        del path
        return True

    @contextmanager
    def _start(
        self, names: list[bytes], path: str, make: bool
    ) -> Iterator[tuple[int, list[bytes], list[bytes]]]:
        """The folder that a walk may not leave, open inside the `with`; its own names, and the rest."""
        del path, make
        yield self._top(), [], names

    def open_dir(self, path: str, base: str = "/", *, follow: bool = True, listing: bool = False) -> int:
        """A descriptor of an existing directory; the caller closes it. O_PATH, or for scandir if
        `listing`."""
        with self.resolve(path, base, follow=follow) as resolved:
            _require(resolved, stat.S_IFDIR, path)
            if not listing:
                return os.dup(resolved.fd)
            return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=resolved.fd)

    def open_file(
        self, path: str, flags: int, mode: int = 0o644, base: str = "/", *, create_parents: bool = False
    ) -> int:
        """A descriptor of a regular file; the caller closes it. FIFOs and devices are never opened.

        flags: as for open(2), with O_CREAT, O_EXCL and O_TRUNC. The descriptor has O_NONBLOCK, which has no
        effect on regular files.
        """
        for _ in range(MAX_CREATE_RACES):
            with self.resolve(path, base, make_parents=create_parents) as resolved:
                if resolved.fd >= 0:
                    return _open_existing(resolved, flags, path)
                if not flags & os.O_CREAT:
                    raise OSError(errno.ENOENT, "")
                fd = _create(resolved, flags, mode)
                if fd >= 0:
                    return fd
        raise Unavailable(f"Another program keeps changing this path: {shown(path)}")

    def make_dirs(self, path: str, base: str = "/") -> None:
        """Makes the directory and its parents if they do not exist."""
        for _ in range(MAX_CREATE_RACES):
            with self.resolve(path, base, make_parents=True) as resolved:
                if resolved.fd >= 0:
                    return _require(resolved, stat.S_IFDIR, path)
                _make_dir(resolved.name, resolved.parent_fd)
        raise Unavailable(f"Another program keeps changing this path: {shown(path)}")

    def real_path(self, path: str, base: str = "/", steps: StepBudget | None = None) -> str:
        """The host's path of an existing file or directory, for programs that take only paths.

        It was inside the workspace when resolved. A program that opens it later resolves it again, and then
        only the sandbox confines it: use a descriptor where possible.
        """
        with self.resolve(path, base, steps=steps) as resolved:
            if resolved.fd < 0:
                raise OSError(errno.ENOENT, "")
            real, top = os.readlink(by_fd(resolved.fd)), os.readlink(by_fd(self._top()))
            if real != top and not real.startswith(top.rstrip("/") + "/"):
                raise outside(path)
            # The link of a deleted file ends in " (deleted)", which could also be a name: compare inodes.
            if not os.path.samestat(os.stat(real, follow_symlinks=False), os.fstat(resolved.fd)):
                raise OSError(errno.ENOENT, "")
            return real


class _Limited(Workspace):
    """See Workspace.limited. Which folder a path begins with is decided by its names; the folder itself is
    opened through no link, since a process may put one in its place. Closed with its workspace only."""

    def __init__(self, whole: Workspace, folders: Sequence[str]) -> None:
        self.root, self.min_free, self.partials = whole.root, whole.min_free, whole.partials
        self._whole = whole
        # The deepest first, which gives its holder the most to name.
        self._folders = sorted((parts(folder) for folder in folders), key=len, reverse=True)

    def close(self) -> None:
        """Its descriptor is the workspace's."""

    def covers(self, path: str) -> bool:
        names = names_of(path)
        return any(names[: len(each)] == each for each in self._folders)

    def _top(self) -> int:
        return self._whole._top()

    @contextmanager
    def _start(
        self, names: list[bytes], path: str, make: bool
    ) -> Iterator[tuple[int, list[bytes], list[bytes]]]:
        folder = next((each for each in self._folders if names[: len(each)] == each), None)
        if folder is None:
            raise Refused(
                f"This grant is not for this path: {shown(path)}",
                code="forbidden",
                hint="it is for " + ", ".join(shown(spell(each)) for each in self._folders[:5]),
            )
        start = enter(self._top(), folder, make)
        try:
            yield start, folder, names[len(folder) :]
        finally:
            os.close(start)


def enter(fd: int, names: Sequence[bytes], make: bool = False) -> int:
    """A directory below one that is held open, by names alone and through no link; O_PATH, the caller closes
    it. make: those that are missing. Raises OSError."""
    here = os.dup(fd)
    for name in names:
        above = here
        try:
            if make:
                _make_dir(name, above)
            here = os.open(name, _LOOK | os.O_DIRECTORY, dir_fd=above)
        finally:
            os.close(above)
    return here


class _Below(Workspace):
    """See Workspace.below. It stays the same directory, also where it is moved."""

    def __init__(self, fd: int, whole: Workspace) -> None:
        self.root, self.min_free, self.partials = whole.root, whole.min_free, whole.partials
        self._fd, self._closed = fd, False
        self._opening = threading.Lock()


def by_fd(fd: int) -> str:
    """A path to the inode of an O_PATH descriptor, for calls that do not take such descriptors."""
    return f"/proc/self/fd/{fd}"


class _Walk:
    """One resolution: component by component from the root. The walk expands links, never the kernel.

    `here` is the directory that `done` (plain names, no links) led to; `todo` is the rest, the next one last.
    A `..` drops the last of `done` and restarts at the root: an open directory may have been moved out of the
    workspace, and its own `..` would then be outside. So at most two descriptors are open. before: the names
    of the root itself, for messages.
    """

    def __init__(
        self,
        root_fd: int,
        before: list[bytes],
        rest: list[bytes],
        path: str,
        make: bool,
        follow: Follow,
        steps: StepBudget,
    ) -> None:
        self._root_fd, self._before = root_fd, before
        self._path, self._make, self._follow = path, make, follow
        self._steps = steps
        self._done: list[bytes] = []
        self._todo = rest[::-1]
        self._links = 0
        self._here = self._leaf = -1

    def close(self) -> None:
        self._hold(-1, -1)

    def _hold(self, here: int, leaf: int) -> None:
        """Closes descriptors that are not in the new pair; forgets them first, so that none is closed
        twice."""
        old, (self._here, self._leaf) = (self._here, self._leaf), (here, leaf)
        for fd in old:
            if fd >= 0 and fd not in (here, leaf):
                os.close(fd)

    def run(self) -> Resolved:
        self._restart()
        while self._todo:
            resolved = self._step(self._todo.pop())
            if resolved is not None:
                return resolved
        self._hold(-1, self._here)
        return self._resolved(b"", os.fstat(self._leaf).st_mode)

    def _resolved(self, name: bytes, mode: int) -> Resolved:
        here, last = (self._here, [name]) if name else (-1, [])
        return Resolved(here, name, self._leaf, mode, (*self._before, *self._done, *last))

    def _restart(self) -> None:
        self._todo += self._done[::-1]
        self._done.clear()
        self._hold(os.dup(self._root_fd), -1)

    def _step(self, name: bytes) -> Resolved | None:
        if name == b"..":
            self._up()
            return None
        self._count_step()
        try:
            self._leaf = os.open(name, _LOOK, dir_fd=self._here)
        except FileNotFoundError:
            return self._missing(name)
        mode = os.fstat(self._leaf).st_mode
        if stat.S_ISLNK(mode) and (self._todo if self._follow == "parents" else self._follow):
            self._expand()
            return None
        if not self._todo:
            return self._resolved(name, mode)
        self._enter(name, mode)
        return None

    def _count_step(self) -> None:
        self._steps.left -= 1
        if self._steps.left < 0:
            raise InvalidRequest(f"Takes too many steps to resolve: {shown(self._path)}")

    def _up(self) -> None:
        levels = 1
        while self._todo and self._todo[-1] == b"..":
            self._todo.pop()
            levels += 1
        if levels > len(self._done):
            raise outside(self._path)
        del self._done[-levels:]
        self._restart()

    def _missing(self, name: bytes) -> Resolved | None:
        if not self._todo:
            return self._resolved(name, 0)
        if not self._make:
            raise OSError(errno.ENOENT, "")
        _make_dir(name, self._here)
        self._todo.append(name)
        return None

    def _expand(self) -> None:
        # The descriptor is that of the link, so the link that was checked is the link that is read.
        target = os.readlink(b"", dir_fd=self._leaf)
        self._hold(self._here, -1)
        self._links += 1
        if self._links > MAX_LINKS:
            raise OSError(errno.ELOOP, "")
        if target.startswith(b"/"):
            raise outside(self._path)
        self._todo += [part for part in target.split(b"/") if part not in (b"", b".")][::-1]

    def _enter(self, name: bytes, mode: int) -> None:
        self._done.append(name)
        if not stat.S_ISDIR(mode):
            raise InvalidRequest(f"Not a directory: {shown(spell(self._before + self._done))}")
        self._hold(self._leaf, -1)


def _require(resolved: Resolved, kind: int, path: str) -> None:
    if resolved.fd < 0:
        raise OSError(errno.ENOENT, "")
    if stat.S_IFMT(resolved.mode) == kind:
        return
    if kind == stat.S_IFDIR:
        raise OSError(errno.ENOTDIR, "")
    if stat.S_ISDIR(resolved.mode):
        raise OSError(errno.EISDIR, "")
    raise InvalidRequest(f"Not a regular file: {shown(path)}")


def require_regular(resolved: Resolved, path: str) -> None:
    """Raises unless this is a regular file: InvalidRequest, or OSError inside `resolve`."""
    _require(resolved, stat.S_IFREG, path)


def _open_existing(resolved: Resolved, flags: int, path: str) -> int:
    require_regular(resolved, path)
    if flags & os.O_CREAT and flags & os.O_EXCL:
        raise OSError(errno.EEXIST, "")
    return reopen(resolved, flags & ~(os.O_CREAT | os.O_EXCL))


def reopen(resolved: Resolved, flags: int) -> int:
    """Opens the inode of an existing file, whatever its name means by now."""
    return os.open(by_fd(resolved.fd), (flags & ~os.O_NOFOLLOW) | _ALWAYS)


def open_regular(name: str, parent_fd: int) -> int:
    """A regular file in a directory that is held open, to read; links are not followed, and nothing else is
    opened. Raises OSError."""
    look = os.open(name, _LOOK, dir_fd=parent_fd)
    try:
        if not stat.S_ISREG(os.fstat(look).st_mode):
            raise OSError(errno.EINVAL, "")
        return os.open(by_fd(look), os.O_RDONLY | _ALWAYS)
    finally:
        os.close(look)


def _create(resolved: Resolved, flags: int, mode: int) -> int:
    """A new file, or -1 if the name was taken meanwhile. O_EXCL never follows a link."""
    try:
        return create_exclusive(resolved.name, flags, mode, resolved.parent_fd)
    except FileExistsError:
        if flags & os.O_EXCL:
            raise
        return -1


def _make_dir(name: bytes, parent_fd: int) -> None:
    require_shown(name)
    try:
        make_new_dir(name, parent_fd)
    except FileExistsError:
        pass  # Another program was faster; the next open shows whether it is a directory.
