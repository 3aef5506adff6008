"""Gives an installation to the user who installs: refuses files that no engine contains, takes over the rest.

For folders in which nothing runs any more. Knows files; knows no engine and no npm.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from mhnos_runtime.errors import InstallFailed

#: Attributes that give rights beyond the mode; other attributes are harmless.
_RIGHTS = ("system.posix_acl_access", "system.posix_acl_default", "security.capability")

#: Nested folders: several times what packages have. Python 3.11 walks a tree by recursion.
_MAX_DEPTH = 100


def check(folder: Path) -> None:
    """Raises InstallFailed (engine-unsafe) for a link out of the folder, a file with another hard link, which
    may be outside, a set-user-ID or set-group-ID file, a device, a FIFO, a socket, and folders nested too
    deeply; OSError for what cannot be read."""
    root = os.path.realpath(folder)
    for where, folders, files in os.walk(folder, onerror=_fail):
        if os.path.relpath(where, folder).count("/") >= _MAX_DEPTH:
            raise _unsafe("folders nested too deeply", where, folder)
        for name in (*folders, *files):
            path = os.path.join(where, name)
            if what := _forbidden(path, os.lstat(path), root):
                raise _unsafe(what, path, folder)


def _unsafe(what: str, path: str, folder: Path) -> InstallFailed:
    return InstallFailed(
        f"npm installed {what}: {os.path.relpath(path, folder)}",
        code="engine-unsafe",
        hint="do not use it; check which registry npm uses (`npm config get registry`)",
    )


def _fail(error: OSError) -> None:
    raise error


def _forbidden(path: str, status: os.stat_result, root: str) -> str:
    mode = status.st_mode
    if stat.S_ISLNK(mode):
        target = os.path.realpath(path)
        return "" if target == root or target.startswith(root + "/") else "a link that leads out of it"
    if stat.S_ISDIR(mode):
        return ""
    if not stat.S_ISREG(mode):
        return "a device, FIFO or socket"
    if mode & (stat.S_ISUID | stat.S_ISGID):
        return "a set-user-ID or set-group-ID file"
    return "a file with several names" if status.st_nlink > 1 else ""


def take(folder: Path) -> None:
    """Make the folder and everything in it the caller's, readable by everybody and writable by nobody else.
    Raises as `check`."""
    check(folder)
    owner = (os.geteuid(), os.getegid())
    for where, folders, files in os.walk(folder, onerror=_fail):
        for path in (where, *(os.path.join(where, name) for name in (*folders, *files))):
            os.chown(path, *owner, follow_symlinks=False)
            if os.path.islink(path):
                continue
            for name in _RIGHTS:
                with contextlib.suppress(OSError):
                    os.removexattr(path, name, follow_symlinks=False)
            mode = os.lstat(path).st_mode
            os.chmod(path, 0o755 if stat.S_ISDIR(mode) or mode & 0o100 else 0o644)
