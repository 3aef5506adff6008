"""Names of files for people: what drives no terminal, and can be typed again into a shell. Pure."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mhnos_runtime.cli import say

if TYPE_CHECKING:
    from mhnos_runtime.wire.messages import FileInfo

_BETWEEN = 2  # columns of space between two names
_DIRECTORY, _LINK, _PROGRAM, _OTHER = "1;34", "36", "32", "33"  # as ls(1)
_NEEDS_QUOTES = re.compile(r"[\s\"'`$&|;<>()\[\]{}*?!\\#~=%^]")


def shown(name: str) -> str:
    """As it is where a shell would take it so; else quoted, as ls(1) does on a terminal."""
    if not name.isprintable():
        return "$'" + "".join(map(_escaped, name)) + "'"
    if not name or _NEEDS_QUOTES.search(name) or name.startswith("-"):
        return "'" + name.replace("'", "'\\''") + "'"
    return name


def _escaped(char: str) -> str:
    """As bash reads it in $'...'."""
    if char in "\\'":
        return f"\\{char}"
    if char.isprintable():
        return char
    number = ord(char)
    if number < 0x80:
        return {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\x1b": "\\e"}.get(char) or f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def raw(name: str) -> str:
    """As it is, for programs; halves of surrogate pairs, which no text may hold, are shown."""
    return name.encode("utf-8", "backslashreplace").decode()


def painted(name: str, file: FileInfo) -> str:
    """The name in the colour of its kind, where colours are wanted."""
    code = {"directory": _DIRECTORY, "link": _LINK, "other": _OTHER}.get(file.kind, "")
    if file.kind == "file" and file.mode & 0o111:
        code = _PROGRAM
    return say.paint(name, code, sys.stdout) if code else name


def columns(names: Sequence[str], width: int, cell: Callable[[int], str]) -> list[str]:
    """Lines of names in columns, read downwards, in as few lines as the width allows. cell: what is printed
    of the name with this number."""
    widths = [say.width(name) for name in names]
    height = _height(widths, width)
    lines = []
    column_widths = [max(widths[at : at + height]) + _BETWEEN for at in range(0, len(names), height or 1)]
    for row in range(height):
        line = ""
        for column, at in enumerate(range(row, len(names), height)):
            last = at + height >= len(names)
            line += cell(at) + ("" if last else " " * (column_widths[column] - widths[at]))
        lines.append(line)
    return lines


def _height(widths: Sequence[int], width: int) -> int:
    """How few lines will do."""
    most = width // (min(widths, default=0) + _BETWEEN) + 1
    for across in range(min(len(widths), most), 1, -1):
        height = -(-len(widths) // across)
        taken = sum(max(widths[at : at + height]) + _BETWEEN for at in range(0, len(widths), height))
        if taken - _BETWEEN <= width:
            return height
    return len(widths)
