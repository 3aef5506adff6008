"""A tar stream taken apart as it arrives: bytes in, entries out. Pure; trusts nothing in it.

Reads what GNU tar, bsdtar, Python, Go and git write: v7, ustar, GNU and pax headers (tar(5) of libarchive).
Sparse files are refused, since their size says nothing of what they take.
"""

from __future__ import annotations

from collections.abc import Iterator

from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.files.archives.entry import END, ArchiveEntry, EntryKind, Event
from mhnos_runtime.files.archives.tar import BLOCK

MAX_EXTENDED_BYTES = 1 << 20
"""Of one extended header. Attributes may be in it; a name and a target have 8 KiB at most."""

MAX_SIZE = 2**63 - 1
"""Of a file (off_t)."""

_KINDS: dict[bytes, EntryKind] = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",  # Contiguous, on systems that know that.
    b"1": "hardlink",
    b"2": "link",
    b"5": "directory",
}
_REFUSED = {b"3": "a device", b"4": "a device", b"6": "a FIFO", b"S": "a sparse file", b"M": "half a file"}
#: Extended headers, which describe the next entry, or all that follow.
_EXTENDED = frozenset((b"x", b"g", b"L", b"K"))
#: They have no content, whatever their size says.
_EMPTY = frozenset((b"1", b"2", b"3", b"4", b"5", b"6"))
_ZEROS = bytes(BLOCK)
_MAX_DIGITS = 20
#: Of the records in extended headers.
_TOLD = frozenset((b"path", b"linkpath", b"size", b"mtime"))
_SPARSE = b"GNU.sparse."
#: Where GNU's older format says that the list of a sparse file's parts goes on: in the header, and in blocks
#: of the list.
_SPARSE_BEGINS, _SPARSE_MORE = 482, 504


class Untar:
    """feed() pieces, then finish(). Both raise InvalidRequest (code damaged) where this is no tar archive, or
    not a whole one: nothing that follows can be told from anything else then."""

    def __init__(self) -> None:
        self._rest = b""
        self._left = self._padding = 0
        self._inside = False
        self._extended: tuple[bytes, bytearray] | None = None
        self._next: dict[bytes, bytes] = {}
        self._more_sparse = False
        self.ended = False

    def feed(self, piece: bytes) -> Iterator[Event]:
        """What the archive says by now. The views are valid until the next event is asked for."""
        data = self._rest + piece if self._rest else piece
        view, at, length = memoryview(data), 0, len(data)
        while not self.ended:
            if self._more_sparse:
                if length - at < BLOCK:
                    break
                self._more_sparse = data[at + _SPARSE_MORE] != 0
                at += BLOCK
                continue
            if self._left:
                taken = view[at : at + self._left]
                at += len(taken)
                self._left -= len(taken)
                if self._extended is not None:
                    self._extended[1].extend(taken)
                elif self._inside and taken:
                    yield taken
                if self._left:
                    break
            if self._inside:
                self._inside = False
                yield END
            if self._padding:
                skipped = min(self._padding, length - at)
                at, self._padding = at + skipped, self._padding - skipped
            if self._extended is not None:
                self._learn()
            if length - at < BLOCK:
                break
            block, at = data[at : at + BLOCK], at + BLOCK
            entry = self._block(block)
            if entry is not None:
                self._inside = True
                yield entry
        self._rest = b"" if self.ended else data[at:]

    def finish(self) -> None:
        """No more comes."""
        if not self.ended:
            raise self._damaged("it ends before its end mark")

    def _damaged(self, why: str) -> InvalidRequest:
        return InvalidRequest(
            f"Not a whole tar archive: {why}",
            code="damaged",
            hint="what came before that is written; send the whole archive again",
        )

    def _block(self, block: bytes) -> ArchiveEntry | None:
        if block == _ZEROS:
            self.ended = True
            return None
        self._check(block)
        kind = block[156:157]
        size = self._number(block[124:136], "size")
        if kind in _EXTENDED:
            self._begin_extended(kind, size)
            return None
        return self._entry(block, kind, size)

    def _check(self, block: bytes) -> None:
        stored = self._number(block[148:156], "checksum")
        total = sum(block) - sum(block[148:156]) + 8 * ord(" ")
        # Old programs take bytes for signed.
        if total != stored and total - 256 * sum(byte > 127 for byte in block) != stored:
            raise self._damaged("what should be a header is none")

    def _begin_extended(self, kind: bytes, size: int) -> None:
        if size > MAX_EXTENDED_BYTES:
            raise self._damaged(f"an extended header has more than {MAX_EXTENDED_BYTES} bytes")
        self._extended = kind, bytearray()
        self._left, self._padding = size, -size % BLOCK

    def _learn(self) -> None:
        kind, data = self._extended or (b"", bytearray())
        self._extended = None
        if kind == b"L":
            self._next[b"path"] = bytes(data).split(b"\0", 1)[0]
        elif kind == b"K":
            self._next[b"linkpath"] = bytes(data).split(b"\0", 1)[0]
        elif kind == b"x":
            self._next.update(self._records(bytes(data)))

    def _records(self, data: bytes) -> dict[bytes, bytes]:
        """Each is "LENGTH KEY=VALUE" and a newline (pax(1))."""
        found, at = {}, 0
        while at < len(data) and data[at]:
            digits, space, _ = data[at : at + _MAX_DIGITS].partition(b" ")
            length = int(digits) if space and digits.isdigit() else 0
            record = data[at + len(digits) + 1 : at + length]
            key, equals, value = record[:-1].partition(b"=")
            if not equals or at + length > len(data) or record[-1:] != b"\n":
                raise self._damaged("a record of an extended header is none")
            if key in _TOLD or key.startswith(_SPARSE):
                found[key] = value
            at += length
        return found

    def _entry(self, block: bytes, kind: bytes, size: int) -> ArchiveEntry:
        told, self._next = self._next, {}
        name = told.get(b"path") or _name(block)
        target = told.get(b"linkpath") or block[157:257].partition(b"\0")[0]
        if b"size" in told:
            size = self._decimal(told[b"size"], "size")
        mode = self._number(block[100:108], "mode")
        entry = ArchiveEntry(name, _KINDS.get(kind, "refused"), size, mode, self._mtime(block, told), target)
        if entry.kind == "file" and kind == b"\0" and name.endswith(b"/"):
            entry.kind = "directory"
        if told and any(key.startswith(_SPARSE) for key in told):
            kind, entry.kind = b"S", "refused"
        if entry.kind == "refused":
            entry.why = f"It is {_REFUSED.get(kind, 'of a kind that is not known')}"
            self._more_sparse = kind == b"S" and block[257:265] == b"ustar  \0" and block[_SPARSE_BEGINS] != 0
        self._left = 0 if kind in _EMPTY else size
        self._padding = -self._left % BLOCK
        return entry

    def _mtime(self, block: bytes, told: dict[bytes, bytes]) -> int:
        if b"mtime" not in told:
            return self._number(block[136:148], "mtime", signed=True) * 1_000_000_000
        whole, _, fraction = told[b"mtime"].partition(b".")
        sign = -1 if whole.startswith(b"-") else 1
        seconds = self._decimal(whole.removeprefix(b"-"), "mtime")
        return sign * (seconds * 1_000_000_000 + self._decimal(fraction[:9].ljust(9, b"0"), "mtime"))

    def _number(self, field: bytes, what: str, *, signed: bool = False) -> int:
        """Octal digits, or, where the first bit is set, a binary number (GNU, star)."""
        if field[0] & 0x80:
            value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:])
            if field[0] & 0x40:
                value -= 1 << (8 * len(field) - 1)
        else:
            try:
                value = int(field.partition(b"\0")[0].strip() or b"0", 8)
            except ValueError:
                raise self._damaged(f"the {what} in a header is no number") from None
        if value > MAX_SIZE or value < (-MAX_SIZE if signed else 0):
            raise self._damaged(f"the {what} in a header is out of range")
        return value

    def _decimal(self, digits: bytes, what: str) -> int:
        value = int(digits) if digits.isdigit() and len(digits) <= _MAX_DIGITS else MAX_SIZE + 1
        if value > MAX_SIZE:
            raise self._damaged(f"the {what} in an extended header is no number")
        return value


def _name(block: bytes) -> bytes:
    """With the prefix of ustar; GNU's older format has other things there."""
    name = block[:100].partition(b"\0")[0]
    if block[345] == 0 or block[257:263] != b"ustar\0":
        return name
    prefix = block[345:500].partition(b"\0")[0]
    return prefix + b"/" + name
