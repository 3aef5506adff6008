"""Writes a known stream into a log as fast as it can. Arguments: path, bytes, seed; says so when it blocks.

Holds are obeyed like the supervisor does, but for ever.
"""

from __future__ import annotations

import os
import random
import sys
import time

from mhnos_runtime.output import LogWriter
from mhnos_runtime.output.layout import BURST_BYTES

PATTERN = b"".join(n.to_bytes(4, "big") for n in range(1 << 16))


def content(offset: int, count: int) -> bytes:
    start = offset % len(PATTERN)
    return (PATTERN + PATTERN)[start : start + count]


def stream_of(offset: int) -> int:
    return offset // 10_007 % 2


def main() -> None:
    path, total, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    writer = LogWriter(os.open(path, os.O_RDWR))
    chance = random.Random(seed)
    while writer.head < total:
        room = writer.room()
        if not room:
            if writer.block():
                while not writer.room():
                    time.sleep(0.0001)
            writer.unblock()
            continue
        size = min(room, total - writer.head, 10_007 - writer.head % 10_007)
        if chance.random() < 0.5:
            size = min(size, chance.randrange(1, 200))
        writer.reserve(min(room, BURST_BYTES))
        writer.append(content(writer.head, size), stream_of(writer.head), writer.head // 5000)


if __name__ == "__main__":
    main()
