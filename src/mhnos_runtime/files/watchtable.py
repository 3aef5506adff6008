"""What a watch knows of the directories and files below it, in little memory. Knows names and marks; opens
nothing."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

from mhnos_runtime.files.entries import Kind, kind_of
from mhnos_runtime.files.version import version_of

#: What all watches of a server together may know: some 200,000 files.
TABLE_BYTES = 40 << 20
#: Of a file, beside its name, and of a directory: measured, with the shares of their dicts.
FILE_BYTES = 150
FOLDER_BYTES = 700

_LETTERS: dict[Kind, bytes] = {"file": b"f", "link": b"l", "other": b"o", "directory": b"d"}
_KINDS = {letter: kind for kind, letter in _LETTERS.items()}


class Budget:
    """A number of bytes that several take from, in threads."""

    def __init__(self, size: int = TABLE_BYTES) -> None:
        self._left = size
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True

    def give(self, size: int) -> None:
        with self._lock:
            self._left += size


class Folder:
    """A directory. files: marks by name, of everything that is no directory. watch: the kernel's number, -1
    for none. lost: its watch is gone. closed: it could not be read."""

    __slots__ = ("closed", "files", "folders", "identity", "lost", "name", "parent", "watch")

    def __init__(self, parent: Folder | None, name: bytes, identity: tuple[int, int]) -> None:
        self.parent = parent
        self.name = name
        self.identity = identity
        self.files: dict[bytes, bytes] = {}
        self.folders: dict[bytes, Folder] = {}
        self.watch = -1
        self.lost = self.closed = False

    def names(self) -> list[bytes] | None:
        """From the watched directory down to this one; None where it is not part of the table any more."""
        found: list[bytes] = []
        here = self
        while here.parent is not None:
            if here.parent.folders.get(here.name) is not here:
                return None
            found.append(here.name)
            here = here.parent
        return found[::-1]

    def all(self) -> Iterator[Folder]:
        """This one, and all below it."""
        todo = [self]
        while todo:
            folder = todo.pop()
            todo += folder.folders.values()
            yield folder


def identity_of(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def mark_of(status: os.stat_result, settled: bool = True) -> bytes:
    """Kind and version in 13 bytes. One that is not `settled` differs from all that are."""
    letter = _LETTERS[kind_of(status.st_mode)]
    return (letter if settled else letter.upper()) + bytes.fromhex(version_of(status))


def kind_in(mark: bytes) -> Kind:
    return _KINDS[mark[:1].lower()]


def version_in(mark: bytes) -> str:
    return mark[1:].hex()
