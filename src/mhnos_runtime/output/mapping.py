"""A log file mapped into memory, for either side, once it has been found to be one. Knows the layout only."""

from __future__ import annotations

import mmap
import os
from typing import NamedTuple

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
        size = os.fstat(fd).st_size
        if size < at.PAGE:
            raise _unknown()
        map_ = mmap.mmap(fd, size)
        view = memoryview(map_)
        words = view[: at.PAGE].cast("Q")
        capacity, slots = words[at.W_CAPACITY], words[at.W_SLOTS]
        if not _is_log(words, size):
            words.release()
            view.release()
            map_.close()
            raise _unknown()
        data = at.PAGE + slots * 16
        return cls(map_, view, words, view[at.PAGE : data].cast("Q"), view[data:], capacity, slots)

    def close(self) -> None:
        for view in (self.words, self.segments, self.data, self.view):
            view.release()
        self.map.close()


def _is_log(words: memoryview, size: int) -> bool:
    """Whether the header fits the file and itself: a machine that lost its power may have left anything."""
    capacity, slots = words[at.W_CAPACITY], words[at.W_SLOTS]
    kept_bytes = words[at.W_HEAD] - words[at.W_TAIL]
    kept_segments = words[at.W_OPENED] - words[at.W_KEPT]
    return (
        (words[at.W_MAGIC], words[at.W_VERSION]) == (at.MAGIC, at.VERSION)
        and capacity > 0
        and slots > 0
        and at.PAGE + slots * 16 + capacity == size
        and kept_bytes <= capacity
        and 0 <= kept_segments <= slots
    )


def _unknown() -> Unavailable:
    return Unavailable("the output log is damaged or of another version", code="internal", retry=False)
