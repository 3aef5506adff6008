"""A zip archive, whole in a file, taken apart: its central directory, entry by entry, with bounded memory.
Trusts nothing in it. Knows no workspace.

The local headers only say where content begins: names, sizes and modes are those of the central directory.
"""

from __future__ import annotations

import calendar
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from mhnos_runtime.errors import InvalidRequest, LimitReached
from mhnos_runtime.files.archives import zip as form
from mhnos_runtime.files.archives.entry import END, ArchiveEntry, End, EntryKind, Event
from mhnos_runtime.files.paths import MAX_PATH_BYTES

MAX_RATIO = 100
"""Bytes of content for each byte of the archive, above FREE_BYTES: source code has 10, logs 50."""

FREE_BYTES = 1 << 30
"""Content of an archive whatever its ratio."""

PIECE_BYTES = 1 << 17
"""Content of one step; read so much, and inflated to at most twice as much."""

_STEP_ENTRIES = 500
_WINDOW_BYTES = 1 << 18
_MAX_COMMENT = form.MAX_16
_REFUSED = "It is neither a file nor a directory nor a link"


class _Record(NamedTuple):
    """An entry of the central directory."""

    name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int
    unix_mode: int
    mtime_ns: int | None


class Unzip:
    """check() first, then events(). Both raise InvalidRequest (code damaged) where this is no zip archive."""

    def __init__(self, fd: int) -> None:
        """fd: of the whole archive, open for reading. The caller closes it."""
        self._fd = fd
        self._size = os.fstat(fd).st_size
        self._window, self._window_at = b"", 0
        # base: of what precedes the archive, as in one that extracts itself.
        self._base, self._start, self._length, self._count = self._find()
        self.total = 0

    def check(self) -> Iterator[None]:
        """Goes through the whole directory, in steps; afterwards `total` is known: bytes of all content.
        Raises LimitReached (too-large) for a bomb, also one whose entries share their content."""
        packed = 0
        for number, record in enumerate(self._records()):
            packed += record.packed
            self.total += record.size
            if number % _STEP_ENTRIES == 0:
                yield
        if packed > self._size:
            raise _bomb("its entries share their content")
        if self.total > max(FREE_BYTES, MAX_RATIO * self._size):
            raise _bomb(f"it has {self.total} bytes of content in {self._size}")

    def events(self) -> Iterator[Event]:
        for record in self._records():
            entry = _entry(record)
            if entry.kind == "link":
                yield from self._link(record, entry)
                continue
            yield entry
            if entry.kind == "file":
                yield from self._content(record)
            else:
                yield END

    def _link(self, record: _Record, entry: ArchiveEntry) -> Iterator[Event]:
        target, end = bytearray(), END
        for event in self._content(record):
            if isinstance(event, memoryview):
                target += event
            elif isinstance(event, End):
                end = event
        entry.target = bytes(target)
        yield entry
        yield end

    def _content(self, record: _Record) -> Iterator[Event]:
        """Exactly as much as the directory says, or an end that tells why not."""
        produced, crc = 0, 0
        try:
            for piece in self._inflated(record):
                produced += len(piece)
                if produced > record.size:
                    break
                crc = zlib.crc32(piece, crc)
                yield memoryview(piece)
        except zlib.error:
            yield End("Its content is damaged")
            return
        right = produced == record.size and crc == record.crc
        yield END if right else End("Its content is not what the archive says: other bytes, or more or fewer")

    def _inflated(self, record: _Record) -> Iterator[bytes]:
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        for piece in self._packed(record):
            if inflate.eof:
                raise zlib.error  # What follows is no content, however long it is.
            if record.method == form.STORED:
                yield piece
                continue
            while piece and not inflate.eof:
                yield inflate.decompress(piece, 2 * PIECE_BYTES)
                piece = inflate.unconsumed_tail
        if record.method == form.DEFLATED and not inflate.eof:
            raise zlib.error

    def _packed(self, record: _Record) -> Iterator[bytes]:
        at = self._base + record.offset
        head = os.pread(self._fd, form.LOCAL.size, at)
        if len(head) < form.LOCAL.size or not head.startswith(form.LOCAL_SIGN):
            raise zlib.error
        *_, name_length, extra_length = form.LOCAL.unpack(head)
        at += form.LOCAL.size + name_length + extra_length
        end = at + record.packed
        if end > self._start:
            raise zlib.error
        while at < end:
            piece = os.pread(self._fd, min(PIECE_BYTES, end - at), at)
            if not piece:
                raise zlib.error
            at += len(piece)
            yield piece

    # The central directory

    def _find(self) -> tuple[int, int, int, int]:
        """Where the archive begins and where its central directory, that one's length and its entries."""
        tail = min(self._size, form.END.size + _MAX_COMMENT)
        data = os.pread(self._fd, tail, self._size - tail)
        at = data.rfind(form.END_SIGN)
        while at >= 0:
            if at + form.END.size <= len(data):
                _, disk, first, here, count, length, offset, comment = form.END.unpack_from(data, at)
                if at + form.END.size + comment == len(data):
                    break
            at = data.rfind(form.END_SIGN, 0, at)
        else:
            raise _damaged("it has no end record")
        end = self._size - tail + at
        if form.MAX_32 in (length, offset) or form.MAX_16 in (count, here):
            end, disk, first, count, length, offset = self._find_64(end)
        if disk or first:
            raise _damaged("it is a part of one that was split")
        base = end - length - offset
        if base < 0:
            raise _damaged("its directory is not where it says")
        return base, base + offset, length, count

    def _find_64(self, end: int) -> tuple[int, int, int, int, int, int]:
        at = end - form.LOCATOR.size - form.END64.size
        data = os.pread(self._fd, form.END64.size + form.LOCATOR.size, at) if at >= 0 else b""
        if not data.startswith(form.END64_SIGN) or data[form.END64.size :][:4] != form.LOCATOR_SIGN:
            raise _damaged("it has no zip64 end record")
        _, _, _, _, disk, first, _, count, length, offset = form.END64.unpack_from(data)
        return at, disk, first, count, length, offset

    def _records(self) -> Iterator[_Record]:
        at, end = self._start, self._start + self._length
        for _ in range(self._count):
            head = self._read(at, form.CENTRAL.size, end)
            fields = form.CENTRAL.unpack(head)
            if fields[0] != form.CENTRAL_SIGN:
                raise _damaged("an entry of its directory is none")
            name_length, extra_length, comment_length = fields[10:13]
            at += form.CENTRAL.size
            rest = self._read(at, name_length + extra_length, end)
            at += name_length + extra_length + comment_length
            yield _record(fields, rest[:name_length], rest[name_length:])
        if at != end:
            raise _damaged("its directory has more than its entries")

    def _read(self, at: int, length: int, end: int) -> bytes:
        if at + length > end:
            raise _damaged("its directory ends within an entry")
        begin = at - self._window_at
        if begin < 0 or begin + length > len(self._window):
            self._window_at, begin = at, 0
            self._window = os.pread(self._fd, max(_WINDOW_BYTES, length), at)
        return self._window[begin : begin + length]


def _record(fields: tuple[int, ...], name: bytes, extra: bytes) -> _Record:
    _, made_by, _, flags, method, clock, date, crc, packed, size = fields[:10]
    offset = fields[16]
    found = _extras(extra)
    wide = found.get(form.EXTRA_ZIP64, b"")
    values = []
    for value in (size, packed, offset):
        if value == form.MAX_32 and len(wide) >= 8:
            value, wide = int.from_bytes(wide[:8], "little"), wide[8:]
        values.append(value)
    size, packed, offset = values
    mode = fields[15] >> 16 if made_by >> 8 == form.UNIX else 0
    mtime_ns = _mtime_ns(found.get(form.EXTRA_TIMES, b""), date, clock)
    return _Record(_utf8(name, flags), flags, method, crc, packed, size, offset, mode, mtime_ns)


def _extras(extra: bytes) -> dict[int, bytes]:
    found, at = dict[int, bytes](), 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        found.setdefault(kind, extra[at + 4 : at + 4 + length])
        at += 4 + length
    return found


def _mtime_ns(times: bytes, date: int, clock: int) -> int | None:
    if len(times) >= 5 and times[0] & 1:
        return int.from_bytes(times[1:5], "little", signed=True) * 1_000_000_000
    day = (1980 + (date >> 9), date >> 5 & 15, date & 31)
    if not 1 <= day[1] <= 12 or not 1 <= day[2] <= 31:
        return None
    return calendar.timegm((*day, clock >> 11, clock >> 5 & 63, (clock & 31) * 2)) * 1_000_000_000


def _utf8(name: bytes, flags: int) -> bytes:
    """Without the flag a name is of MS-DOS's code page 437, says 4.4.4; most programs write UTF-8 anyway."""
    if not flags & form.IS_UTF8:
        with suppress(UnicodeDecodeError):
            name.decode()
            return name
        return name.decode("cp437").encode()
    return name


def _entry(record: _Record) -> ArchiveEntry:
    kind, why = _kind(record), ""
    if kind in ("file", "link") and record.flags & form.IS_ENCRYPTED:
        kind, why = "refused", "It is encrypted"
    elif kind in ("file", "link") and record.method not in (form.STORED, form.DEFLATED):
        kind, why = "refused", "It is compressed in a way that is not known"
    elif kind == "link" and (record.size > MAX_PATH_BYTES or record.packed > 2 * MAX_PATH_BYTES):
        kind, why = "refused", "A link without a path that one can have"
    elif kind == "refused":
        why = _REFUSED
    usual = 0o755 if kind == "directory" else 0o644
    mode = stat.S_IMODE(record.unix_mode) if record.unix_mode else usual
    return ArchiveEntry(record.name, kind, record.size, mode, record.mtime_ns, why=why)


def _kind(record: _Record) -> EntryKind:
    form_of = stat.S_IFMT(record.unix_mode)
    if form_of == stat.S_IFLNK:
        return "link"
    if record.name.endswith(b"/") or form_of == stat.S_IFDIR:
        return "directory"
    return "file" if form_of in (0, stat.S_IFREG) else "refused"


def _damaged(why: str) -> InvalidRequest:
    return InvalidRequest(
        f"Not a whole zip archive: {why}", code="damaged", hint="nothing was written; send it again"
    )


def _bomb(why: str) -> LimitReached:
    return LimitReached(
        f"This zip archive is refused: {why}",
        code="too-large",
        hint="nothing was written; send its content as tar",
    )
