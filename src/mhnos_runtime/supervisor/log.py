"""The supervisor's own log lines, in the same two forms as the server's. Knows no logging framework."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from datetime import UTC, datetime

#: Lines with the same message: outsiders can cause some as often as they like, which must not fill the disk.
LINES_A_MINUTE = 20
_MINUTE_SECONDS = 60
#: Characters of one text in a line or in an answer: as JSON up to six bytes each, so that a few of them are
#: far below a message of the channel.
TEXT_CHARACTERS = 2000
_PLAIN = re.compile(r"[^\s\"=]+\Z")


class Log:
    """Writes one line an event to stderr: text for people, JSON elsewhere. A full or closed stderr is
    ignored. Further lines of the same message in a minute are dropped; the next line has their number."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        #: By message: start of its minute, lines in it, dropped lines.
        self._written: dict[str, tuple[float, int, int]] = {}

    def write(self, level: str, message: str, **fields: object) -> None:
        left_out = self._left_out(message)
        if left_out is None:
            return
        fields = {name: shortened(each) if isinstance(each, str) else each for name, each in fields.items()}
        if left_out:
            fields["unreported"] = left_out
        line = self._json(level, message, fields) if self._as_json else self._text(level, message, fields)
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    def _left_out(self, message: str) -> int | None:
        """How many lines were dropped before this one; None if this one is dropped too."""
        now = time.monotonic()
        since, lines, left_out = self._written.get(message, (now, 0, 0))
        if now - since >= _MINUTE_SECONDS:
            since, lines = now, 0
        if lines >= LINES_A_MINUTE:
            self._written[message] = since, lines, left_out + 1
            return None
        self._written[message] = since, lines + 1, 0
        return left_out

    @staticmethod
    def _json(level: str, message: str, fields: dict[str, object]) -> str:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return json.dumps({"ts": now, "level": level, "msg": message, "logger": "supervisor", **fields})

    @staticmethod
    def _text(level: str, message: str, fields: dict[str, object]) -> str:
        pairs = "".join(f" {name}={_quoted(value)}" for name, value in fields.items())
        seconds = time.time()
        clock = time.strftime("%H:%M:%S", time.localtime(seconds))
        return f"{clock}.{int(seconds % 1 * 1000):03d} {level:<7} {message}{pairs}"


def _quoted(value: object) -> str:
    """As the server's lines have it: a text with spaces, quotes or controls in it is one value."""
    plain = isinstance(value, str) and value.isprintable() and _PLAIN.match(value)
    return str(value) if plain else json.dumps(value, default=str)


def shortened(text: str) -> str:
    """The text, or its beginning where it is longer than TEXT_CHARACTERS."""
    return text if len(text) <= TEXT_CHARACTERS else text[:TEXT_CHARACTERS] + "…"


def place(error: BaseException) -> str:
    """What was raised, and where, in one line."""
    where, text = error.__traceback__, " ".join(f"{type(error).__name__}: {error!s:.160}".split())
    if where is None:
        return text
    while where.tb_next is not None:
        where = where.tb_next
    return f"{text} at {os.path.basename(where.tb_frame.f_code.co_filename)}:{where.tb_lineno}"
