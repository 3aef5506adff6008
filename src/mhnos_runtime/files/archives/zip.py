"""A directory as a zip stream that needs no seeking: APPNOTE.TXT 6.3.10 with zip64, as Info-ZIP, browsers'
systems and Python read it. Knows members, not how they were found.

Files up to WHOLE_BYTES have their sizes in front. Larger ones have them behind their content (a data
descriptor), so those are always deflated: only then does a reader that cannot seek see where they end.
"""

from __future__ import annotations

import stat
import struct
import tempfile
import time
import zlib
from collections.abc import Generator, Iterator
from typing import IO, NamedTuple

from mhnos_runtime.files.archives.tar import OUT_BYTES
from mhnos_runtime.files.archives.walk import Member, Skipped, members, told
from mhnos_runtime.files.ignore import Ignore

LEVEL = 1
"""Of deflate: level 6 takes three times as long, and saves a tenth."""

_KEPT_BYTES = 4 << 20
"""Of the central directory in memory; more is in a temporary file. It has some 80 bytes an entry."""

LOCAL = struct.Struct("<4s5H3L2H")
CENTRAL = struct.Struct("<4s6H3L5H2L")
END64 = struct.Struct("<4sQ2H2L4Q")
LOCATOR = struct.Struct("<4sLQL")
END = struct.Struct("<4s4H2LH")
LOCAL_SIGN, CENTRAL_SIGN, DESCRIPTOR_SIGN = b"PK\3\4", b"PK\1\2", b"PK\7\x08"
END64_SIGN, LOCATOR_SIGN, END_SIGN = b"PK\6\6", b"PK\6\7", b"PK\5\6"
STORED, DEFLATED = 0, 8
UNIX = 3
IS_UTF8, HAS_DESCRIPTOR, IS_ENCRYPTED = 1 << 11, 1 << 3, 1
EXTRA_ZIP64, EXTRA_TIMES = 0x0001, 0x5455
MAX_32, MAX_16 = 0xFFFFFFFF, 0xFFFF
#: So far below 4 GiB that what does not shrink fits, too.
_NEEDS_64 = 0xFF000000
_KINDS = {"file": stat.S_IFREG, "directory": stat.S_IFDIR, "link": stat.S_IFLNK}
#: Where less than a tenth is saved, it is not worth the time.
_WORTH = 0.9


class _Packed(NamedTuple):
    method: int
    flags: int
    crc: int
    packed: int
    size: int


def stream(top: int, exclude: Ignore | None = None) -> Generator[bytes]:
    """As tar.stream. Names that are not UTF-8 are left out, and told of."""
    skipped = Skipped()
    with tempfile.SpooledTemporaryFile(_KEPT_BYTES) as central:
        writing = _Writing(central)
        for member in members(top, skipped, exclude):
            if member is None:
                yield writing.take()
            elif not _has_plain_name(member.path):
                skipped.add(member.path, "zip has no place for names that are not UTF-8")
            elif member.fd < 0:
                writing.whole(member)
                if writing.waiting >= OUT_BYTES:
                    yield writing.take()
            else:
                yield from writing.large(member, skipped)
        if (last := told(skipped)) is not None:
            writing.whole(last)
        yield writing.take()
        yield from writing.end()


def _has_plain_name(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Writing:
    """One archive. central: where its directory is kept until the end."""

    def __init__(self, central: IO[bytes]) -> None:
        self._central = central
        self._parts: list[bytes] = []
        self._offset = self._count = 0
        self.waiting = 0

    def take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        self.waiting = 0
        return data

    def whole(self, member: Member) -> None:
        data = member.data
        packed = deflated(data, LEVEL) if member.kind == "file" and data else data
        is_less = len(packed) < len(data) * _WORTH
        content = packed if is_less else data
        how = _Packed(DEFLATED if is_less else STORED, IS_UTF8, zlib.crc32(data), len(content), len(data))
        at = self._offset
        self._put(_local(member, how, is_64=False), content)
        self._note(member, how, at)

    def large(self, member: Member, skipped: Skipped) -> Iterator[bytes]:
        is_64 = member.size >= _NEEDS_64
        at, crc, packed, deflate = self._offset, 0, 0, None
        self._put(_local(member, _Packed(DEFLATED, IS_UTF8 | HAS_DESCRIPTOR, 0, 0, 0), is_64))
        for piece in member.pieces(skipped):
            deflate = deflate or zlib.compressobj(_level(piece), wbits=-zlib.MAX_WBITS)
            crc = zlib.crc32(piece, crc)
            before = self._offset
            self._put(deflate.compress(piece))
            packed += self._offset - before
            if self.waiting >= OUT_BYTES:
                yield self.take()
            else:
                yield b""
        rest = deflate.flush() if deflate is not None else b"\3\0"
        packed += len(rest)
        sizes = struct.pack("<L2Q" if is_64 else "<3L", crc, packed, member.size)
        self._put(rest, DESCRIPTOR_SIGN, sizes)
        self._note(member, _Packed(DEFLATED, IS_UTF8 | HAS_DESCRIPTOR, crc, packed, member.size), at)

    def end(self) -> Iterator[bytes]:
        """The central directory and what ends it (4.3.14 to 4.3.16)."""
        start, size, count = self._offset, self._central.tell(), self._count
        self._central.seek(0)
        while piece := self._central.read(OUT_BYTES):
            yield piece
        tail = b""
        if max(start, size) >= MAX_32 or count >= MAX_16:
            at = start + size
            tail += END64.pack(END64_SIGN, END64.size - 12, 45, 45, 0, 0, count, count, size, start)
            tail += LOCATOR.pack(LOCATOR_SIGN, 0, at, 1)
        counted = min(count, MAX_16)
        yield tail + END.pack(END_SIGN, 0, 0, counted, counted, min(size, MAX_32), min(start, MAX_32), 0)

    def _put(self, *parts: bytes) -> None:
        for part in parts:
            self._parts.append(part)
            self.waiting += len(part)
            self._offset += len(part)

    def _note(self, member: Member, how: _Packed, at: int) -> None:
        name, extra = _name(member), _times(member)
        wide = [value for value in (how.size, how.packed, at) if value >= MAX_32]
        if wide:
            extra += struct.pack(f"<2H{len(wide)}Q", EXTRA_ZIP64, 8 * len(wide), *wide)
        date, clock = _dos_time(member)
        attributes = (_KINDS[member.kind] | member.mode) << 16 | (0x10 if member.kind == "directory" else 0)
        head = (CENTRAL_SIGN, UNIX << 8 | 45, 45 if wide else 20, how.flags, how.method, clock, date, how.crc)
        sizes = (min(how.packed, MAX_32), min(how.size, MAX_32), len(name), len(extra), 0, 0, 0)
        self._central.write(CENTRAL.pack(*head, *sizes, attributes, min(at, MAX_32)) + name + extra)
        self._count += 1


def deflated(data: bytes, level: int) -> bytes:
    deflate = zlib.compressobj(level, wbits=-zlib.MAX_WBITS)
    return deflate.compress(data) + deflate.flush()


def _level(sample: bytes) -> int:
    """0, which only frames, for what is compressed already."""
    sample = sample[: 1 << 16]
    return LEVEL if len(deflated(sample, LEVEL)) < len(sample) * _WORTH else 0


def _local(member: Member, how: _Packed, is_64: bool) -> bytes:
    name, extra = _name(member), _times(member)
    sizes = (how.packed, how.size)
    if is_64:
        extra, sizes = struct.pack("<2H2Q", EXTRA_ZIP64, 16, 0, 0) + extra, (MAX_32, MAX_32)
    date, clock = _dos_time(member)
    head = (LOCAL_SIGN, 45 if is_64 else 20, how.flags, how.method, clock, date, how.crc)
    return LOCAL.pack(*head, *sizes, len(name), len(extra)) + name + extra


def _name(member: Member) -> bytes:
    return (member.path + "/" if member.kind == "directory" else member.path).encode()


def _times(member: Member) -> bytes:
    """Info-ZIP's extra field: seconds since 1970, UTC, while they fit."""
    seconds = member.mtime_ns // 1_000_000_000
    fits = -(2**31) <= seconds < 2**31
    return struct.pack("<2HBl", EXTRA_TIMES, 5, 1, seconds) if fits else b""


def _dos_time(member: Member) -> tuple[int, int]:
    """Date and time of MS-DOS, in UTC: two seconds, from 1980 to 2107 (4.4.6)."""
    seconds = member.mtime_ns // 1_000_000_000
    year, month, day, hour, minute, second = time.gmtime(min(max(seconds, 315532800), 4354819198))[:6]
    return (year - 1980) << 9 | month << 5 | day, hour << 11 | minute << 5 | second // 2
