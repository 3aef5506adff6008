"""New files and directories in a directory that is held open. Knows descriptors and single names; no path.

What root makes belongs to the owner of the folder, since processes, which are not root, work with it.
"""

from __future__ import annotations

import os

# O_NONBLOCK: otherwise another process's lease makes open wait (fs.lease-break-time, 45 s).
_ALWAYS = os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


def create_exclusive(name: bytes, flags: int, mode: int, parent_fd: int) -> int:
    """A file that did not exist, in a directory that is held open. Raises OSError."""
    fd = os.open(name, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | _ALWAYS, mode, dir_fd=parent_fd)
    _give_to_owner(fd, parent_fd)
    return fd


def create_unnamed(flags: int, mode: int, parent_fd: int) -> int:
    """A file without a name in a directory that is held open: nothing is left of it when it is closed, unless
    it is given one. Raises OSError (EOPNOTSUPP, EISDIR, EINVAL or ENOSYS where there are no such files)."""
    fd = os.open(".", flags | os.O_TMPFILE | _ALWAYS, mode, dir_fd=parent_fd)
    _give_to_owner(fd, parent_fd)
    return fd


def _give_to_owner(fd: int, parent_fd: int) -> None:
    if os.geteuid() == 0:
        owner = os.fstat(parent_fd)
        os.fchown(fd, owner.st_uid, owner.st_gid)


def make_new_dir(name: bytes, parent_fd: int) -> None:
    """A directory that did not exist. Raises OSError."""
    os.mkdir(name, 0o755, dir_fd=parent_fd)
    if os.geteuid() == 0:
        _give_dir(name, parent_fd)


def _give_dir(name: bytes, parent_fd: int) -> None:
    """Only a new folder that is root's: a process may have replaced it by something else."""
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
    try:
        if os.fstat(fd).st_uid == 0:
            _give_to_owner(fd, parent_fd)
    finally:
        os.close(fd)
