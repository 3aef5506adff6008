"""The one place that turns a client's path into an open file. Knows the root and the kernel's *at calls.

Must not know who asks or why. A string proves nothing; only the descriptor that a walk ends at counts.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Self

from mhnos_runtime.errors import (
    InvalidRequest,
    LimitReached,
    MhnosError,
    NotFound,
    Refused,
    Unavailable,
)

ALIAS = b"workspace"
"""The workspace's path for processes (`/workspace`); clients may put it before any path."""

MAX_PATH_BYTES = 4096
"""PATH_MAX of Linux: no program can open a longer path in one call."""

MAX_NAME_BYTES = 255
"""NAME_MAX of every common Linux file system."""

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


def normalise(path: str, base: str = "/") -> str:
    """The canonical form of a client's path: absolute, no `.`, no `..`, no leading `/workspace`. Lexical
    only.

    A relative path starts at `base`. The result names the same file when it is normalised again; so a folder
    at the top that is itself called `workspace` becomes `/workspace/workspace`. Raises InvalidRequest (NUL,
    not UTF-8, too long), Refused with code outside-workspace (`..` above the top).
    """
    return _spell(_parts(path, base))


def shown(path: str) -> str:
    """`path` for use in a message: one line, encodable, of bounded length."""
    clipped = path if len(path) <= 300 else path[:297] + "..."
    return clipped if clipped.isprintable() else ascii(clipped)[1:-1]


def explain(error: OSError, path: str) -> MhnosError:
    """The kernel's error as a MhnosError that names the path as the client knows it, never the host's."""
    kind, code, text = _EXPLAINED.get(error.errno or 0, (Unavailable, None, os.strerror(error.errno or 0)))
    return kind(f"{text}: {shown(path)}", code=code)


_EXPLAINED: dict[int, tuple[type[MhnosError], str | None, str]] = {
    errno.ENOENT: (NotFound, None, "No such file or directory"),
    errno.ENOTDIR: (InvalidRequest, None, "Not a directory"),
    errno.EISDIR: (InvalidRequest, None, "Is a directory"),
    errno.EEXIST: (InvalidRequest, None, "Already exists"),
    errno.ELOOP: (InvalidRequest, None, "Too many symbolic links"),
    errno.ENAMETOOLONG: (InvalidRequest, None, "Name too long"),
    errno.EINVAL: (InvalidRequest, None, "The file system does not accept this name or value"),
    errno.EACCES: (Refused, None, "Permission denied"),
    errno.EPERM: (Refused, None, "Permission denied"),
    errno.EROFS: (Refused, None, "Read-only file system"),
    errno.ENOSPC: (LimitReached, "disk-full", "No space left on the workspace's disk"),
    errno.EDQUOT: (LimitReached, "disk-full", "Disk quota of the workspace exceeded"),
    errno.EFBIG: (LimitReached, "too-large", "Larger than a file may be"),
    errno.EWOULDBLOCK: (Unavailable, None, "In use by another program"),
    errno.EBUSY: (Unavailable, None, "In use by another program"),
    errno.EMFILE: (LimitReached, "unavailable", "The runtime has too many open files"),
    errno.ENFILE: (LimitReached, "unavailable", "The machine has too many open files"),
    errno.ENOMEM: (LimitReached, "unavailable", "The machine is out of memory"),
}


@dataclass(slots=True)
class StepBudget:
    """How many of MAX_STEPS are left to resolutions of one request."""

    left: int = MAX_STEPS


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a path resolved to. The descriptors are O_PATH and belong to the `resolve` that yields it.

    parent_fd: the directory that holds `name`; -1 for the top of the workspace.
    fd, mode: the file itself and its st_mode; -1 and 0 if it does not exist.
    """

    parent_fd: int
    name: bytes
    fd: int
    mode: int


class Workspace:
    """The folder that processes and clients share, held open so that the folder itself may be moved.

    Where it cannot be opened, all that needs it is Unavailable, and each use tries again: a server must
    come up for the processes that run, whatever became of the folder.

    Thread-safe; close it only when no thread is in a call. Every method that takes a client's path raises
    InvalidRequest, NotFound, Refused (code outside-workspace, or permission), LimitReached (disk) or
    Unavailable, and names the path as the client knows it.
    """

    normalise = staticmethod(normalise)

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """Opens `root` and follows links in it, since it is the operator's path."""
        self.root = os.fspath(root)
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
        follow: bool = True,
        steps: StepBudget | None = None,
    ) -> Iterator[Resolved]:
        """Resolve `path`. Its parents must exist, the file itself need not. `follow`: whether links are.

        The descriptors are open only inside the `with`. An OSError in the block is raised as `explain` maps
        it.
        """
        walk = _Walk(self._top(), _parts(path, base), path, make_parents, follow, steps or StepBudget())
        try:
            yield walk.run()
        except OSError as error:
            raise explain(error, path) from error
        finally:
            walk.close()

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
                raise _outside(path)
            # The link of a deleted file ends in " (deleted)", which could also be a name: compare inodes.
            if not os.path.samestat(os.stat(real, follow_symlinks=False), os.fstat(resolved.fd)):
                raise OSError(errno.ENOENT, "")
            return real


def by_fd(fd: int) -> str:
    """A path to the inode of an O_PATH descriptor, for calls that do not take such descriptors."""
    return f"/proc/self/fd/{fd}"


class _Walk:
    """One resolution: component by component from the root. The walk expands links, never the kernel.

    `here` is the directory that `done` (plain names, no links) led to; `todo` is the rest, the next one last.
    A `..` drops the last of `done` and restarts at the root: an open directory may have been moved out of the
    workspace, and its own `..` would then be outside. So at most two descriptors are open.
    """

    def __init__(
        self, root_fd: int, parts: list[bytes], path: str, make: bool, follow: bool, steps: StepBudget
    ) -> None:
        self._root_fd, self._path, self._make, self._follow = root_fd, path, make, follow
        self._steps = steps
        self._done: list[bytes] = []
        self._todo = parts[::-1]
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
        return Resolved(-1, b"", self._leaf, os.fstat(self._leaf).st_mode)

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
        if stat.S_ISLNK(mode) and self._follow:
            self._expand()
            return None
        if not self._todo:
            return Resolved(self._here, name, self._leaf, mode)
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
            raise _outside(self._path)
        del self._done[-levels:]
        self._restart()

    def _missing(self, name: bytes) -> Resolved | None:
        if not self._todo:
            return Resolved(self._here, name, -1, 0)
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
            raise _outside(self._path)
        self._todo += [part for part in target.split(b"/") if part not in (b"", b".")][::-1]

    def _enter(self, name: bytes, mode: int) -> None:
        self._done.append(name)
        if not stat.S_ISDIR(mode):
            raise InvalidRequest(f"Not a directory: {shown(_spell(self._done))}")
        self._hold(self._leaf, -1)


def _parts(path: str, base: str) -> list[bytes]:
    start = [] if path.startswith("/") else _fold([], base, base)
    return _fold(start, path, path)


def _fold(parts: list[bytes], path: str, named: str) -> list[bytes]:
    names = [name for name in _encode(path).split(b"/") if name not in (b"", b".")]
    if path.startswith("/") and names[:1] == [ALIAS]:
        del names[0]
    for name in names:
        if name != b"..":
            parts.append(name)
        elif parts:
            parts.pop()
        else:
            raise _outside(named)
    if len(_join(parts)) > MAX_PATH_BYTES:
        raise InvalidRequest(f"Path longer than {MAX_PATH_BYTES} bytes: {shown(named)}")
    return parts


def _encode(path: str) -> bytes:
    try:
        raw = path.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"Path is not valid UTF-8: {shown(path)}") from None
    if b"\0" in raw:
        raise InvalidRequest(f"Path with a NUL character: {shown(path)}")
    if len(raw) > MAX_PATH_BYTES:
        raise InvalidRequest(f"Path longer than {MAX_PATH_BYTES} bytes: {shown(path)}")
    if max(map(len, raw.split(b"/"))) > MAX_NAME_BYTES:
        raise InvalidRequest(f"Path with a name longer than {MAX_NAME_BYTES} bytes: {shown(path)}")
    return raw


def _join(parts: list[bytes]) -> bytes:
    full = [ALIAS, *parts] if parts[:1] == [ALIAS] else parts
    return b"/" + b"/".join(full)


def _spell(parts: list[bytes]) -> str:
    # Names found through a link need not be UTF-8; they are only shown.
    return _join(parts).decode(errors="surrogateescape")


def _outside(path: str) -> Refused:
    return Refused(
        f"Leads outside the workspace: {shown(path)}",
        code="outside-workspace",
        hint="Links may only be relative and stay inside the workspace.",
    )


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


def _create(resolved: Resolved, flags: int, mode: int) -> int:
    """A new file, or -1 if the name was taken meanwhile. O_EXCL never follows a link."""
    try:
        return create_exclusive(resolved.name, flags, mode, resolved.parent_fd)
    except FileExistsError:
        if flags & os.O_EXCL:
            raise
        return -1


def create_exclusive(name: bytes, flags: int, mode: int, parent_fd: int) -> int:
    """A file that did not exist, in a directory that is held open. Raises OSError."""
    fd = os.open(name, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | _ALWAYS, mode, dir_fd=parent_fd)
    _give_to_owner(fd, parent_fd)
    return fd


def _give_to_owner(fd: int, parent_fd: int) -> None:
    """Root's new files get the owner of their folder, since processes, which are not root, work with them."""
    if os.geteuid() == 0:
        owner = os.fstat(parent_fd)
        os.fchown(fd, owner.st_uid, owner.st_gid)


def _make_dir(name: bytes, parent_fd: int) -> None:
    try:
        os.mkdir(name, 0o755, dir_fd=parent_fd)
        if os.geteuid() == 0:
            _give_dir(name, parent_fd)
    except FileExistsError:
        pass  # Another program was faster; the next open shows whether it is a directory.


def _give_dir(name: bytes, parent_fd: int) -> None:
    """Only a new folder that is root's: a process may have replaced it by something else."""
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
    try:
        if os.fstat(fd).st_uid == 0:
            _give_to_owner(fd, parent_fd)
    finally:
        os.close(fd)
