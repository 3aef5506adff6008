"""A directory as a tar stream: POSIX.1-2001 (pax), as GNU tar, bsdtar and Python read it. Knows members, not
how they were found.

Owners are left out, and so are the bits setuid, setgid and sticky: root may unpack it elsewhere.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

from mhnos_runtime.files.archives.walk import Member, Skipped, members, told
from mhnos_runtime.files.ignore import Ignore

BLOCK = 512
"""tar(5): everything is padded to it."""

RECORD = 20 * BLOCK
"""The whole is padded to it: GNU tar reads so much at a time, and leaves what comes behind the end in the
pipe, so that a program which still writes there would fail."""

OUT_BYTES = 1 << 16
"""Of one step: small members are put together to so much. It stays in the caches of a processor."""

#: What fits into the octal digits of a header.
_MAX_SIZE = 8**11 - 1
_MAX_NAME = 100
_TYPES = {"file": b"0", "directory": b"5", "link": b"2"}
_OWNER = b"0000000\0" * 2
_SPACES = b" " * 8
_ZEROS = bytes(BLOCK)
_AFTER_LINK = b"ustar\x0000".ljust(255, b"\0")
_CONSTANT_SUM = sum(_OWNER) + sum(_SPACES) + sum(_AFTER_LINK)


def stream(top: int, exclude: Ignore | None = None) -> Generator[bytes]:
    """The archive in pieces of some OUT_BYTES; a piece is empty where a step has found nothing.

    top: a directory opened for listing, which the caller closes, at last. exclude: as for members. Raises
    LimitReached and Unavailable, after which the archive can never be whole.
    """
    skipped = Skipped()
    parts: list[bytes] = []
    waiting = sent = 0
    for member in members(top, skipped, exclude):
        if member is None:
            yield b""
            continue
        parts.append(_head(member))
        if member.fd >= 0:
            before = b"".join(parts)
            sent += len(before) + member.size + -member.size % BLOCK
            yield from _large(member, skipped, before)
        else:
            waiting += 2 * BLOCK + member.size  # Its padding is at most a block.
            if member.size:
                parts += (member.data, _padding(member.size))
            if waiting < OUT_BYTES:
                continue
            yield (piece := b"".join(parts))
            sent += len(piece)
        parts.clear()
        waiting = 0
    if (last := told(skipped)) is not None:
        parts += (_head(last), last.data, _padding(last.size))
    rest = b"".join(parts)
    yield rest + bytes(2 * BLOCK + -(sent + len(rest) + 2 * BLOCK) % RECORD)


def _large(member: Member, skipped: Skipped, before: bytes) -> Iterator[bytes]:
    yield before
    yield from member.pieces(skipped)
    yield _padding(member.size)


def _head(member: Member) -> bytes:
    path, kind, mode, mtime_ns, size, data, _ = member
    name = path.encode(errors="surrogateescape")
    if kind == "directory":
        name += b"/"
    target = data if kind == "link" else b""
    return _header(name, _TYPES[kind], mode, size, mtime_ns // 1_000_000_000, target)


def _padding(size: int) -> bytes:
    return _ZEROS[: -size % BLOCK]


def _header(name: bytes, kind: bytes, mode: int, size: int, seconds: int, target: bytes = b"") -> bytes:
    """With an extended header before it where a value does not fit."""
    before = b""
    if len(name) > _MAX_NAME or len(target) > _MAX_NAME or not 0 <= seconds <= _MAX_SIZE or size > _MAX_SIZE:
        before = _extended(name, size, seconds, target)
        name, target = name[:_MAX_NAME], target[:_MAX_NAME]
        size = size if size <= _MAX_SIZE else 0
        seconds = min(max(seconds, 0), _MAX_SIZE)
    numbers = b"%011o\0%011o\0" % (size, seconds)
    rights = b"%07o\0" % mode
    total = sum(name) + sum(target) + sum(numbers) + sum(rights) + kind[0] + _CONSTANT_SUM
    return b"%b%b%b%b%b%06o\0 %b%b%b" % (
        before,
        name.ljust(_MAX_NAME, b"\0"),
        rights,
        _OWNER,
        numbers,
        total,
        kind,
        target.ljust(_MAX_NAME, b"\0"),
        _AFTER_LINK,
    )


def _extended(name: bytes, size: int, seconds: int, target: bytes) -> bytes:
    """The values that do not fit (pax(1), "pax Extended Header")."""
    wanted = {
        b"path": name if len(name) > _MAX_NAME else b"",
        b"linkpath": target if len(target) > _MAX_NAME else b"",
        b"size": b"%d" % size if size > _MAX_SIZE else b"",
        b"mtime": b"%d" % seconds if not 0 <= seconds <= _MAX_SIZE else b"",
    }
    records = b"".join(_record(key, value) for key, value in wanted.items() if value)
    if not _is_utf8(name + target):
        records = _record(b"hdrcharset", b"BINARY") + records
    head = _header(b"././@PaxHeader", b"x", 0o644, len(records), 0)
    return head + records + _padding(len(records))


def _record(key: bytes, value: bytes) -> bytes:
    """Its length, which counts its own digits, a space, "KEY=VALUE" and a newline."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True
