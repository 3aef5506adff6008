"""renameat2(2), which the os module does not have: to a name that is free, and two names exchanged. Knows
directories that are held open."""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import stat

_NOREPLACE, _EXCHANGE = 1, 2
#: What file systems, kernels and C libraries answer that do not have it.
_UNKNOWN = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_libc = ctypes.CDLL(None, use_errno=True)


def rename_free(name: bytes, new: bytes, folder: int, new_folder: int) -> None:
    """Raises FileExistsError where something stands under the new name, which then stays as it is; and
    OSError."""
    try:
        _rename(name, new, folder, new_folder, _NOREPLACE)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
        _rename_carefully(name, new, folder, new_folder)


def exchange(name: bytes, other: bytes, folder: int, other_folder: int) -> bool:
    """Let two files have each other's names, as one step. False where the file system cannot. Raises
    OSError."""
    try:
        _rename(name, other, folder, other_folder, _EXCHANGE)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
        return False
    return True


def rename_back(name: bytes, old: bytes, folder: int, old_folder: int) -> None:
    """Where another program has put something in its old place meanwhile, it gets a name beside that. Raises
    OSError."""
    for suffix in (b"", b".restored"):
        try:
            rename_free(name, old[:200] + suffix if suffix else old, folder, old_folder)
        except FileExistsError:
            pass
        else:
            return
    rename_free(name, old[:200] + b".restored-" + secrets.token_hex(4).encode(), folder, old_folder)


def _rename(name: bytes, new: bytes, folder: int, new_folder: int, flags: int) -> None:
    call = getattr(_libc, "renameat2", None)  # musl has it since 1.2.6
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if call(folder, name, new_folder, new, ctypes.c_uint(flags)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _rename_carefully(name: bytes, new: bytes, folder: int, new_folder: int) -> None:
    """Without flags: a directory takes the place of an empty one, which is made first; anything else gets a
    second name."""
    if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        os.mkdir(new, 0o700, dir_fd=new_folder)
        try:
            os.rename(name, new, src_dir_fd=folder, dst_dir_fd=new_folder)
        except OSError:
            os.rmdir(new, dir_fd=new_folder)
            raise
        return
    try:
        os.link(name, new, src_dir_fd=folder, dst_dir_fd=new_folder, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        _rename_last(name, new, folder, new_folder)
    else:
        os.unlink(name, dir_fd=folder)


def _rename_last(name: bytes, new: bytes, folder: int, new_folder: int) -> None:
    """A file system without hard links, such as vfat: nothing closes the gap between look and rename."""
    try:
        os.stat(new, dir_fd=new_folder, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(name, new, src_dir_fd=folder, dst_dir_fd=new_folder)
    else:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
