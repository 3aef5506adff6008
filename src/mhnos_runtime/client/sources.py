"""What is sent: pieces that are exactly as many bytes as was said. Reads files; must not know connections."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO

from mhnos_runtime.client.errors import SourceChanged

READ_BYTES = 256 * 1024


def exactly(source: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The pieces, when they are `size` bytes in all. Raises SourceChanged before the last one, with which the
    server would have all that it expects; so each piece is held back until the next one is known."""
    held, total = b"", 0
    for piece in filter(None, source):
        if total + len(piece) > size:
            raise SourceChanged(f"there is more to send than the {size} bytes it was said to be")
        yield held
        held = piece
        total += len(piece)
    if total < size:
        raise SourceChanged(f"there are {total} bytes to send, not {size} as it was said")
    yield held


def read_up_to(source: BinaryIO, size: int) -> Iterator[bytes]:
    """What is left of a file, in pieces of READ_BYTES; `size` bytes at most, so that of a log that grows
    meanwhile what it was at the start is sent."""
    while size and (piece := source.read(min(READ_BYTES, size))):
        yield piece
        size -= len(piece)
