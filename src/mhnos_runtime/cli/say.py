"""What this command says itself, on stderr and as tables and JSON on stdout. Knows no runtime."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

RED = "31"
BOLD = "1"


def colours(stream: TextIO) -> bool:
    """Whether colours are wanted there: on a terminal, unless NO_COLOR says otherwise (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, code: str, stream: TextIO) -> str:
    """The text in a colour where colours are wanted."""
    return f"\x1b[{code}m{text}\x1b[0m" if colours(stream) else text


def error(message: str, hint: str = "") -> None:
    """What is wrong, and on a second line what to do."""
    print(f"{paint('mhnos-runtime:', RED, sys.stderr)} {_printable_lines(message)}", file=sys.stderr)
    if hint:
        print(f"{paint('hint:', BOLD, sys.stderr)} {_printable_lines(hint)}", file=sys.stderr)


def as_json(value: object) -> None:
    """One JSON document."""
    import json

    print(json.dumps(value, indent=2, ensure_ascii=False))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as they need to be."""
    print("\n".join(table_lines(head, rows)))


def table_lines(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table; cells hold nothing that would move a cursor."""
    cells = [list(head), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def printable(text: str) -> str:
    """Control characters made visible: a process's name must not be able to drive the terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _printable_lines(text: str) -> str:
    return "\n".join(printable(line) for line in text.split("\n"))


def count(number: int, one: str, many: str) -> str:
    """A number of things for people: "1 process", "3 processes"."""
    return f"{number} {one if number == 1 else many}"


def size(count: int | None) -> str:
    """Bytes for people: "12.3 MiB"; "-" where it is not known."""
    if count is None:
        return "-"
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"


def duration(seconds: float) -> str:
    """A time for people, in its two largest units: "2h 5m"."""
    left = max(0, int(seconds))
    parts: list[str] = []
    for unit, name in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        if left >= unit or (unit == 1 and not parts):
            parts.append(f"{left // unit}{name}")
            left %= unit
    return " ".join(parts[:2])


def silence_stdout() -> None:
    """The reader of a pipe has gone: what is buffered goes nowhere, also at the interpreter's end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
