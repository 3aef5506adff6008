"""How much a disk has left, and how much of that clients may take. Knows open files; not what is written."""

from __future__ import annotations

import os

from mhnos_runtime.errors import LimitReached

LOOK_BYTES = 8 << 20
"""How much is written between two looks at the free space of the disk."""


class Space:
    """Keeps `min_free` bytes of a disk free, for one that writes much: most of its questions cost no look."""

    def __init__(self, min_free: int) -> None:
        self._min_free = min_free
        self._until_look = 0

    def look(self, fd: int, coming: int) -> None:
        """Before `coming` bytes are written. fd: of an open file or directory on the disk. Raises
        LimitReached (disk-full)."""
        self._until_look -= coming
        if self._until_look <= 0:
            self._until_look = LOOK_BYTES
            require_space(fd, self._min_free, coming)


def require_space(fd: int, min_free: int, coming: int = 0) -> None:
    """Raises LimitReached (disk-full) unless the disk of an open file keeps `min_free` bytes free when
    `coming` bytes have been written."""
    if min_free or coming:
        free = free_bytes(fd)
        if free - coming < min_free:
            kept = f", of which {min_free >> 20} MiB are to stay free" if min_free else ""
            raise LimitReached(
                f"The workspace's disk has {free >> 20} MiB left{kept}",
                code="disk-full",
                hint="remove what is not needed" + (", or lower min_free" if min_free else ""),
            )


def free_bytes(fd: int) -> int:
    """What users other than root may still write to the disk of an open file, which may be O_PATH."""
    disk = os.fstatvfs(fd)
    return disk.f_bavail * disk.f_frsize
