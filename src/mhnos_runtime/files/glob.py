"""Globs of .gitignore as regular expressions, byte for byte what git's wildmatch.c does. Knows one glob; not
where it stands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

#: POSIX classes that a bracket may name, in the C locale.
_CLASSES: dict[bytes, frozenset[int]] = {
    b"alnum": frozenset(byte for byte in range(128) if chr(byte).isalnum()),
    b"alpha": frozenset(byte for byte in range(128) if chr(byte).isalpha()),
    b"blank": frozenset(b" \t"),
    b"cntrl": frozenset([*range(32), 127]),
    b"digit": frozenset(b"0123456789"),
    b"graph": frozenset(range(33, 127)),
    b"lower": frozenset(byte for byte in range(128) if chr(byte).islower()),
    b"print": frozenset(range(32, 127)),
    b"punct": frozenset(byte for byte in range(33, 127) if not chr(byte).isalnum()),
    b"space": frozenset(b" \t\n\r\v\f"),
    b"upper": frozenset(byte for byte in range(128) if chr(byte).isupper()),
    b"xdigit": frozenset(b"0123456789abcdefABCDEF"),
}
#: A bracket never takes it.
_SLASH = ord("/")


def expression(glob: bytes) -> bytes | None:
    """The regular expression, in Latin-1 and for the whole of a path, or None where the glob matches nothing:
    a bracket or a backslash at its end is not completed."""
    parts: list[bytes] = []
    position = 0
    while position < len(glob):
        part, position = _next(glob, position)
        if part is None:
            return None
        parts.append(part)
    return b"".join(parts)


def _next(glob: bytes, position: int) -> tuple[bytes | None, int]:
    """What stands at a position, as an expression, and the position behind it."""
    char = glob[position : position + 1]
    if char == b"*":
        return _stars(glob, position)
    if char == b"?":
        return b"[^/]", position + 1
    if char == b"[":
        return _bracket(glob, position + 1)
    if char == b"\\":
        position += 1
        char = glob[position : position + 1]
    return _literal(char[0]) if char else None, position + 1


def _stars(glob: bytes, position: int) -> tuple[bytes, int]:
    """`**` that is all of a name stands for any number of names, none included; elsewhere it is like `*`."""
    end = position
    while glob[end : end + 1] == b"*":
        end += 1
    whole = position == 0 or glob[position - 1] == _SLASH
    if end - position > 1 and whole and end == len(glob):
        return b".*", end
    if end - position > 1 and whole and glob[end] == _SLASH:
        return b"(?:.*/)?", end + 1
    return b"[^/]*", end


def _bracket(glob: bytes, position: int) -> tuple[bytes | None, int]:
    """position: behind the "["."""
    negated = glob[position : position + 1] in (b"!", b"^")
    taken: set[int] = set()
    before, first = -1, True
    position += negated
    while first or glob[position : position + 1] != b"]":
        first = False
        chars, before, position = _member(glob, position, before)
        if chars is None:
            return None, position
        taken.update(chars)
    return _class(_outside(taken) if negated else _ranges(sorted(taken - {_SLASH}))), position + 1


def _member(glob: bytes, position: int, before: int) -> tuple[Iterable[int] | None, int, int]:
    """What a part of a bracket takes, the byte that a range may begin with, and the position behind it."""
    if glob.startswith(b"[:", position):
        end = glob.find(b"]", position + 2)
        if end < 0:
            return None, -1, position
        if end > position + 2 and glob[end - 1 : end] == b":":
            return _CLASSES.get(glob[position + 2 : end - 1]), -1, end + 1
    if before >= 0 and glob[position : position + 1] == b"-" and glob[position + 1 : position + 2] != b"]":
        last, position = _byte(glob, position + 1)
        return (range(before, last + 1) if last >= 0 else None), -1, position
    byte, position = _byte(glob, position)
    return ((byte,) if byte >= 0 else None), byte, position


def _byte(glob: bytes, position: int) -> tuple[int, int]:
    """The byte that is meant at a position, -1 behind the end."""
    position += glob[position : position + 1] == b"\\"
    return (glob[position] if position < len(glob) else -1), position + 1


def _class(ranges: Iterable[tuple[int, int]]) -> bytes | None:
    spans = [_literal(a) if a == z else _literal(a) + b"-" + _literal(z) for a, z in ranges]
    return b"[" + b"".join(spans) + b"]" if spans else None


def _ranges(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Those that follow one another, as first and last."""
    start = 0
    for end in range(1, len(numbers) + 1):
        if end == len(numbers) or numbers[end] != numbers[end - 1] + 1:
            yield numbers[start], numbers[end - 1]
            start = end


def _outside(numbers: set[int]) -> Iterator[tuple[int, int]]:
    """All other bytes, without the slash."""
    before = -1
    for number in sorted(numbers | {_SLASH, 256}):
        if number > before + 1:
            yield before + 1, number - 1
        before = number


def _literal(byte: int) -> bytes:
    return bytes([byte]) if chr(byte).isalnum() and byte < 128 else b"\\x%02x" % byte
