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


def fault(error: OSError) -> str:
    """What is wrong, in words and without a number."""
    named = f"{error.filename}: " if isinstance(error.filename, str) else ""
    return f"{named}{error.strerror or error}"


def status(text: str) -> None:
    """A line in brackets between a command's output, as `run` and `attach` have them."""
    print(f"[{printable(text)}]", file=sys.stderr, flush=True)


def as_json(value: object) -> None:
    """One JSON document."""
    import json

    print(json_text(json.dumps(value, indent=2, ensure_ascii=False)))


def json_text(text: str) -> str:
    """The same JSON with escapes for what could drive a terminal: JSON itself leaves DEL, the controls from
    U+0080 on and those of writing directions in texts."""
    import json

    return "".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, shrink: int | None = None) -> None:
    """Columns as wide as they need to be. shrink: the one that gives way, so that on a terminal no line is
    wider than the screen."""
    print("\n".join(table_lines(head, rows, shrink=shrink, columns=screen_columns(sys.stdout))))


def screen_columns(stream: TextIO) -> int | None:
    """How many characters fit into a line there; None: any number, since it is no terminal."""
    if not stream.isatty():
        return None
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except OSError:
        return 80


def table_lines(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    shrink: int | None = None,
    columns: int | None = None,
) -> list[str]:
    """The lines of a table; cells hold nothing that would move a cursor. shrink: a column that is cut where
    the lines would be wider than `columns`; what is still too wide is cut at its end."""
    cells = [list(head), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(width(row[column]) for row in cells) for column in range(len(head))]
    if columns is not None and shrink is not None:
        over = sum(widths) + len(_BETWEEN) * (len(widths) - 1) - columns
        widths[shrink] = min(widths[shrink], max(len(head[shrink]), widths[shrink] - over))
    return [_line(row, widths, columns) for row in cells]


_BETWEEN = "  "


def _line(row: Sequence[str], widths: Sequence[int], columns: int | None) -> str:
    cells = (cut(cell, space) for cell, space in zip(row, widths, strict=True))
    line = _BETWEEN.join(
        cell + " " * (space - width(cell)) for cell, space in zip(cells, widths, strict=True)
    )
    return line.rstrip() if columns is None else cut(line.rstrip(), columns)


def width(text: str) -> int:
    """How many columns of a terminal a text takes: East Asian characters take two, accents none (UAX #11)."""
    if text.isascii():
        return len(text)
    import unicodedata

    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) > 0 for char in text)


def cut(text: str, columns: int) -> str:
    """At most so wide; where something is missing, it says so."""
    if width(text) <= columns:
        return text
    while text and width(text) >= columns:
        text = text[:-1]
    return f"{text}…"


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


def span(ms: int) -> str:
    """A time that somebody set, exactly: "500 ms", "1.5 s", "2m 5s"."""
    if ms < 1000:
        return f"{ms} ms"
    return f"{ms / 1000:g} s" if ms < 60_000 else duration(ms / 1000)


def silence_stdout() -> None:
    """The reader of a pipe has gone: what is buffered goes nowhere, also at the interpreter's end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
