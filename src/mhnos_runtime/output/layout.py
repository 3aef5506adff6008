"""The memory layout that one writer and any number of readers share, and the order in which they touch it.

The file is one page of header, then the segment table, then the data ring:

    byte 0        header: unsigned 64-bit words in the machine's own order, one cache line for each side
    byte 4096     segments: SLOTS pairs of words (first offset * 2 + stream, epoch milliseconds), a ring
    behind them   data: CAPACITY bytes, a ring; the byte at offset n stands at n modulo CAPACITY

A segment says to which stream the bytes from its first offset up to the next segment's belong, and since
when. HEAD counts every byte ever written, TAIL is the first one still kept; OPENED counts every segment ever
opened, and KEPT is the number of the first one still kept.

Writer:  TAIL, KEPT · fence · data, segments, OPENED · fence · HEAD · fence · look at WAITING
Reader:  HEAD · fence · TAIL, segments, data · fence · TAIL, KEPT again: what was overtaken is thrown away
Parking: reader sets WAITING · fence · looks at HEAD; writer publishes HEAD · fence · looks at WAITING
Holding: reader sets HOLD · fence · looks at BLOCKED; writer sets BLOCKED · fence · looks at HOLD

Aligned words are read and written by one machine instruction each (CPython copies them with an 8-byte
memcpy).
"""

from __future__ import annotations

import _thread

MAGIC = 0x4D484E4F534C4F47
VERSION = 1

PAGE = 4096

# Written once.
W_MAGIC, W_VERSION, W_CAPACITY, W_SLOTS = 0, 1, 2, 3
# Written by the writer.
W_HEAD, W_TAIL, W_OPENED, W_KEPT = 8, 9, 10, 11
# Written by readers (all in one server); the writer clears WAITING, and sets HOLD before there is a reader.
W_HOLD, W_WAITING = 16, 17
# Written by the server, for the next one: INPUT_SLOTS times what became of one client's numbered input, as
# (name's hash, bytes typed, where a write that is under way ends or 0, epoch milliseconds of its last use).
W_INPUTS, INPUT_WORDS, INPUT_SLOTS = 64, 4, 64
# Written by the writer when HOLD keeps it from reading on.
W_BLOCKED = 24

#: HOLD when nobody is waited for.
NO_HOLD = (1 << 64) - 1

#: Most bytes taken or given in one turn. One PTY read gives 4 KiB, a pipe holds 64 KiB.
BURST_BYTES = 64 * 1024

#: Data bytes to a segment slot: a log of lines that alternate between the streams loses nothing early.
BYTES_PER_SLOT = 64

#: A segment of one stream is closed after so long, so that its time says when its bytes came.
SEGMENT_MS = 1000

#: Segments that one page of times is made from: some 10 ms of the event loop.
TIMES_SEGMENTS = 10_000
#: Times nearer to each other than this are one: a log of lines that alternate between the streams has
#: thousands.
TIMES_APART_MS = 250


def sizes(retention_bytes: int) -> tuple[int, int, int]:
    """Return (ring capacity, segment slots, file size). The ring has one burst more, so that what is promised
    is kept also while a burst is being read."""
    capacity = -(-(retention_bytes + BURST_BYTES) // PAGE) * PAGE
    slots = -(-capacity // BYTES_PER_SLOT // 256) * 256
    return capacity, slots, PAGE + slots * 16 + capacity


class Fence:
    """A full memory fence in pure Python.

    To release and acquire a lock is a read-modify-write with release and then one with acquire order on the
    same word: nothing from before the first is seen after anything from behind the second (C11 5.1.2.4, Armv8
    DDI0487 B2.3), and on x86 the locked instruction drains the store buffer. Not for use by two threads at
    once.
    """

    __slots__ = ("_lock",)
    # _thread, since importing threading makes every fork of the supervisor slower.

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._lock.acquire()

    def __call__(self) -> None:
        self._lock.release()
        self._lock.acquire()
