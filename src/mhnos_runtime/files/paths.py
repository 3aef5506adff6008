"""Paths of the workspace as clients write them: one canonical form, its bounds, and errors in its terms.

Knows texts only, and opens nothing: what a path leads to is confine's.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from mhnos_runtime.errors import (
    Conflict,
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

PARTIAL_PREFIX = ".mhnos-push-"
"""Of names of files that are being written, or were when a server was killed. Never listed, pulled or
watched."""


def normalise(path: str, base: str = "/") -> str:
    """The canonical form of a client's path: absolute, no `.`, no `..`, no leading `/workspace`. Lexical
    only.

    A relative path starts at `base`. The result names the same file when it is normalised again; so a folder
    at the top that is itself called `workspace` becomes `/workspace/workspace`. Raises InvalidRequest (NUL,
    not UTF-8, too long), Refused with code outside-workspace (`..` above the top).
    """
    return spell(parts(path, base))


def shown(path: str) -> str:
    """`path` for use in a message: one line, encodable, of bounded length."""
    clipped = path if len(path) <= 300 else path[:297] + "..."
    return clipped if clipped.isprintable() else ascii(clipped)[1:-1]


def explain(error: OSError, path: str) -> MhnosError:
    """The kernel's error as a MhnosError that names the path as the client knows it, never the host's."""
    kind, code, text = _EXPLAINED.get(error.errno or 0, (Unavailable, None, os.strerror(error.errno or 0)))
    return kind(f"{text}: {shown(path)}", code=code)


def require_shown(name: bytes) -> None:
    """Raises InvalidRequest for a name that clients would never be shown again."""
    if name.startswith(PARTIAL_PREFIX.encode()):
        raise InvalidRequest(f"Names that begin with {PARTIAL_PREFIX} are of files on their way")


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Raises an OSError of its block as `explain` maps it."""
    try:
        yield
    except OSError as error:
        raise explain(error, path) from error


_EXPLAINED: dict[int, tuple[type[MhnosError], str | None, str]] = {
    errno.ENOENT: (NotFound, None, "No such file or directory"),
    errno.ENOTDIR: (InvalidRequest, None, "Not a directory"),
    errno.EISDIR: (InvalidRequest, "is-a-directory", "Is a directory"),
    errno.EEXIST: (InvalidRequest, None, "Already exists"),
    errno.ELOOP: (InvalidRequest, None, "Too many symbolic links"),
    errno.ENAMETOOLONG: (InvalidRequest, None, "Name too long"),
    errno.EINVAL: (InvalidRequest, None, "The file system does not accept this name or value"),
    errno.EACCES: (Refused, None, "Permission denied"),
    errno.EPERM: (Refused, None, "Permission denied"),
    errno.ENOTEMPTY: (InvalidRequest, "not-empty", "Directory not empty"),
    errno.EXDEV: (InvalidRequest, "other-file-system", "On another file system"),
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


def parts(path: str, base: str = "/") -> list[bytes]:
    """The names of a path in canonical form, from the top. Raises as `normalise` does."""
    start = [] if path.startswith("/") else _fold([], base, base)
    return _fold(start, path, path)


def spell(names: list[bytes]) -> str:
    """The canonical path of these names. Names found through a link need not be UTF-8; they are only
    shown."""
    return _join(names).decode(errors="surrogateescape")


def names_of(path: str) -> list[bytes]:
    """The names of a path that `spell` has made, also where they are not UTF-8."""
    names = [name for name in os.fsencode(path).split(b"/") if name]
    return names[1:] if names[:1] == [ALIAS] else names


def outside(path: str) -> Refused:
    """The error for a path that leads out of the workspace."""
    return Refused(
        f"Leads outside the workspace: {shown(path)}",
        code="outside-workspace",
        hint="A path and each link in it stay inside the workspace; links are relative.",
    )


def taken(path: str, hint: str = "choose another name, or replace it") -> Conflict:
    """The error for a path at which nothing was to be."""
    return Conflict(f"There is one already: {shown(path)}", code="already-exists", hint=hint)


def _fold(names: list[bytes], path: str, named: str) -> list[bytes]:
    new = [name for name in _encode(path).split(b"/") if name not in (b"", b".")]
    if path.startswith("/") and new[:1] == [ALIAS]:
        del new[0]
    for name in new:
        if name != b"..":
            names.append(name)
        elif names:
            names.pop()
        else:
            raise outside(named)
    if len(_join(names)) > MAX_PATH_BYTES:
        raise InvalidRequest(f"Path longer than {MAX_PATH_BYTES} bytes: {shown(named)}")
    return names


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


def _join(names: list[bytes]) -> bytes:
    full = [ALIAS, *names] if names[:1] == [ALIAS] else names
    return b"/" + b"/".join(full)
