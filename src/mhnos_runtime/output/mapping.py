"""A log file mapped into memory, for either side, once it has been found to be one. Knows the layout only."""

from __future__ import annotations

import mmap
import os
import stat
from typing import NamedTuple

from mhnos_runtime.bounds import MAX_INTEGER
from mhnos_runtime.errors import Unavailable
from mhnos_runtime.output import layout as at


class Mapping(NamedTuple):
    """words: the header. segments: two words a slot. data: the ring."""

    map: mmap.mmap
    view: memoryview
    words: memoryview
    segments: memoryview
    data: memoryview
    capacity: int
    slots: int

    @classmethod
    def of(cls, fd: int) -> Mapping:
        """Map the file; `fd` stays the caller's. Raises Unavailable for a file of another layout."""
        if not stat.S_ISREG((found := os.fstat(fd)).st_mode):
            raise _unknown()
        # Before anything is mapped: what the file does not have cannot be touched (mmap(2), SIGBUS).
        header = os.pread(fd, at.PAGE, 0)
        if len(header) < at.PAGE or not _is_log(memoryview(header).cast("Q"), found.st_size):
            raise _unknown()
        capacity, slots = memoryview(header).cast("Q")[at.W_CAPACITY : at.W_SLOTS + 1]
        map_ = mmap.mmap(fd, found.st_size)
        view = memoryview(map_)
        words = view[: at.PAGE].cast("Q")
        data = at.PAGE + slots * 16
        return cls(map_, view, words, view[at.PAGE : data].cast("Q"), view[data:], capacity, slots)

    def close(self) -> None:
        for view in (self.words, self.segments, self.data, self.view):
            view.release()
        self.map.close()


def _is_log(words: memoryview, size: int) -> bool:
    """Whether the header fits the file and itself: a machine that lost its power may have left anything, and
    so may a server that was taken over. The positions of the ring are what JavaScript can count; the
    segments' content is not looked at, since readers bear with any."""
    capacity = words[at.W_CAPACITY]
    kept_bytes = words[at.W_HEAD] - words[at.W_TAIL]
    kept_segments = words[at.W_OPENED] - words[at.W_KEPT]
    return (
        (words[at.W_MAGIC], words[at.W_VERSION]) == (at.MAGIC, at.VERSION)
        and capacity >= at.BURST_BYTES
        and at.sizes(capacity - at.BURST_BYTES) == (capacity, words[at.W_SLOTS], size)
        and words[at.W_HEAD] <= MAX_INTEGER
        and 0 <= kept_bytes <= capacity
        and words[at.W_OPENED] <= MAX_INTEGER
        and 0 <= kept_segments <= words[at.W_SLOTS]
    )


def _unknown() -> Unavailable:
    return Unavailable("the output log is damaged or of another version", code="internal", retry=False)
