"""Notes of what has a partial name at this moment, for the next server: where it is, and which file. Knows
their form in the state directory, and no file of the workspace.

Each server has a file of its own, locked (flock(2)) as long as it lives, so that what another server works on
is never taken for a leftover. A note has a place in it and is written before the name is made: two short
writes to the kernel's memory, which survive the process and not a loss of power.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec

VERSION = 1
#: One note: a folder of 4,096 bytes and two names of 255, in base64.
PLACE_BYTES = 8192
#: At the same time; each takes a descriptor or more of the server.
MAX_NOTES = 4096

_OWN = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LEFT = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_IDENTITY = struct.Struct("<QQ")
#: Identity of what was made, length and CRC-32 of what follows. A length of 0: no note.
_HEAD = struct.Struct("<QQII")
_NOTHING = (0, 0)
_ATTEMPTS = 16

Identity = tuple[int, int]


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where something is: the folder's path from the top of the workspace, without links, and its name in
    that. stood: which file it was exchanged with; target: the name that this one goes back to, b"" where it
    is to be removed."""

    folder: bytes
    name: bytes
    target: bytes = b""
    stood: Identity = _NOTHING
    version: int = VERSION


@dataclass(frozen=True, slots=True)
class Left:
    """A note that was found. made: device and inode of what got the name; None: nobody came to note that."""

    place: Place
    made: Identity | None


def identity_of(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino


class Partials:
    """Thread-safe. A note that cannot be written, such as on a full disk, is none: what is noted goes on."""

    def __init__(self, folder: Path | None) -> None:
        """folder: None: nothing is noted."""
        self._folder = folder
        self._lock = threading.Lock()
        self._fd, self._name = -1, ""
        self._free: list[int] = []
        self._used = 0

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def begin(self, folder: Sequence[bytes], name: bytes) -> Partial:
        """Note that something will have this name. folder: the names from the top of the workspace."""
        partial = Partial(self, self._take_place())
        partial.note(Place(b"/".join(folder), name))
        return partial

    def left(self) -> Iterator[Leftovers]:
        """What servers have left that are gone."""
        if self._folder is None:
            return
        with suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name != self._name:
                    found = _open_left(entry.path)
                    if found is not None:
                        yield found

    def _take_place(self) -> int:
        """-1 for none."""
        if self._folder is None:
            return -1
        with self._lock:
            if self._fd < 0 and not self._open(self._folder):
                return -1
            if self._free:
                return self._free.pop()
            if self._used == MAX_NOTES:
                return -1
            self._used += 1
            return self._used - 1

    def give_back(self, place: int) -> None:
        with self._lock:
            self._free.append(place)

    def write(self, place: int, data: bytes) -> None:
        with suppress(OSError):
            os.pwrite(self._fd, data, place * PLACE_BYTES)

    def _open(self, folder: Path) -> bool:
        with suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for _ in range(_ATTEMPTS):
                name = secrets.token_hex(8)
                fd = os.open(folder / name, _OWN, 0o600)
                # Another server may have found it before it was locked.
                if _lock(fd) and os.fstat(fd).st_nlink:
                    self._fd, self._name = fd, name
                    return True
                os.close(fd)
        return False


class Partial:
    """One note. Of one job; methods never raise."""

    def __init__(self, partials: Partials, number: int) -> None:
        """number: its place; -1 for none."""
        self._partials, self._number = partials, number
        self._place = Place(b"", b"")
        self._made = _NOTHING

    def note(self, place: Place) -> None:
        self._place, self._made = place, _NOTHING
        self._write()

    def made(self, status: os.stat_result) -> None:
        """Exactly this has the name now. Said before it has any content."""
        self._made = identity_of(status)
        if self._number >= 0:
            self._partials.write(self._number, _IDENTITY.pack(*self._made))

    def exchanged(self, target: bytes, stood: os.stat_result) -> None:
        """What stands at this name of the same folder is about to get the partial one. target: b"" where it
        is not to be kept."""
        self._place = msgspec.structs.replace(self._place, target=target, stood=identity_of(stood))
        self._write()

    def end(self) -> None:
        """There is nothing under the name any more."""
        number, self._number = self._number, -1
        if number >= 0:
            self._partials.write(number, _HEAD.pack(*_NOTHING, 0, 0))
            self._partials.give_back(number)

    def _write(self) -> None:
        data = msgspec.json.encode(self._place)
        if self._number >= 0 and len(data) <= PLACE_BYTES - _HEAD.size:
            self._partials.write(self._number, _HEAD.pack(*self._made, len(data), zlib.crc32(data)) + data)


class Leftovers:
    """The notes of one server that is gone, locked so that no other server works on them, too."""

    def __init__(self, fd: int, path: str) -> None:
        self._fd, self._path = fd, path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def __iter__(self) -> Iterator[Left | None]:
        """One for each place; None where there is no note, or a damaged one."""
        count = min(MAX_NOTES, -(-os.fstat(self._fd).st_size // PLACE_BYTES))
        for number in range(count):
            yield _parse(os.pread(self._fd, PLACE_BYTES, number * PLACE_BYTES))

    def remove(self) -> None:
        os.unlink(self._path)


def _open_left(path: str) -> Leftovers | None:
    """None where its server lives, and for what is no file."""
    try:
        fd = os.open(path, _LEFT)
    except OSError:
        return None
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and _lock(fd) and os.fstat(fd).st_nlink:
        return Leftovers(fd, path)
    os.close(fd)
    return None


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _parse(data: bytes) -> Left | None:
    if len(data) < _HEAD.size:
        return None
    device, inode, length, digest = _HEAD.unpack_from(data)
    text = data[_HEAD.size : _HEAD.size + length]
    if not length or len(text) != length or zlib.crc32(text) != digest:
        return None
    try:
        place = msgspec.json.decode(text, type=Place)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return None
    made = (device, inode)
    return Left(place, None if made == _NOTHING else made) if place.version == VERSION else None
