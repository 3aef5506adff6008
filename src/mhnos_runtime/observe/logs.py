"""Log lines: text on a terminal, JSON elsewhere. Knows levels, fields and forms; no payloads.

Built on the logging of the standard library, so that lines of libraries take the same form.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
import time
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from mhnos_runtime.observe.redact import redact

Level = Literal["debug", "info", "warning", "error"]
Form = Literal["auto", "text", "json"]

ROOT = "mhnos"

# characters of one text in a line: a log is for events, not for data
MAX_TEXT = 2000
# characters of a traceback: its end, with the error and the last calls
MAX_TRACEBACK = 8000

_COLOURS = {"debug": "2", "info": "", "warning": "33", "error": "31"}
_FIELDS = "mhnos_fields"
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_PLAIN = re.compile(r"[^\s\"=]+\Z")


class Log:
    """Writes log lines with fields. `connection` and `process` are the runtime's numbers, not the OS's.

    Messages are fixed texts. Variable parts go into fields, which are numbers and short texts; of bytes only
    the number is written.
    """

    __slots__ = ("_fields", "_logger")

    def __init__(self, logger: logging.Logger, fields: dict[str, object]) -> None:
        self._logger = logger
        self._fields = fields

    def bind(self, **fields: object) -> Log:
        """A log that adds these fields to every line, e.g. connection=3, process=1000."""
        return Log(self._logger, {**self._fields, **fields})

    def debug(self, message: str, /, **fields: object) -> None:
        self._write(logging.DEBUG, message, fields)

    def info(self, message: str, /, **fields: object) -> None:
        self._write(logging.INFO, message, fields)

    def warning(self, message: str, /, **fields: object) -> None:
        self._write(logging.WARNING, message, fields)

    def error(self, message: str, /, **fields: object) -> None:
        self._write(logging.ERROR, message, fields)

    def exception(self, message: str, /, **fields: object) -> None:
        """An error with the exception that is being handled."""
        self._write(logging.ERROR, message, fields, exc_info=True)

    def _write(self, level: int, message: str, fields: dict[str, object], exc_info: bool = False) -> None:
        if self._logger.isEnabledFor(level):
            extra = {_FIELDS: {**self._fields, **fields}}
            self._logger.log(level, message, exc_info=exc_info, extra=extra)


def get(name: str = "") -> Log:
    """The log of a part of the runtime; JSON lines show name as `logger`."""
    return Log(logging.getLogger(f"{ROOT}.{name}" if name else ROOT), {})


def setup(level: Level = "info", form: Form = "auto", stream: TextIO | None = None) -> logging.Handler:
    """Send all logging to stream (default stderr) only.

    form: auto is text when the stream is a terminal, else json. A second call replaces the first.
    Returns the handler, so that a caller can remove it.
    """
    stream = sys.stderr if stream is None else stream
    terminal = stream.isatty()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextLines(terminal and _wants_colour()) if _is_text(form, terminal) else JsonLines())
    handler.set_name(ROOT)
    root = logging.getLogger()
    for old in [old for old in root.handlers if old.get_name() == ROOT]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    return handler


def add_fields(record: logging.LogRecord, **fields: object) -> None:
    """Add fields to the line of another logger's record."""
    setattr(record, _FIELDS, {**getattr(record, _FIELDS, {}), **fields})


def _is_text(form: Form, terminal: bool) -> bool:
    return form == "text" or (form == "auto" and terminal)


def _wants_colour() -> bool:
    """NO_COLOR (no-color.org): set and not empty means no colour."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class JsonLines(logging.Formatter):
    """One object a line: ts (UTC, ms), level, msg, logger, connection, process, other fields, exception.

    ASCII only, so that neither an encoding nor a control character can break a line.
    """

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "ts": when.replace("+00:00", "Z"),
            "level": _level(record),
            "msg": _clean(record.getMessage()),
            "logger": record.name,
        }
        for name, value in _fields_in_order(record):
            line[f"{name}_" if name in line else name] = value
        if text := _exception(self, record):
            line["exception"] = text
        return json.dumps(line)


class TextLines(logging.Formatter):
    """time level message key=value ..., and an exception indented below.

    Lines contain no control characters for terminals.
    """

    def __init__(self, colour: bool = False) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        level = _level(record)
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        parts = [
            f"{clock}.{int(record.msecs):03d}",
            self._paint(f"{level:<7}", level),
            _printable(_clean(record.getMessage())),
        ]
        parts += [f"{name}={_quoted(value)}" for name, value in _fields_in_order(record)]
        lines = [" ".join(parts)]
        lines += [f"    {_printable(line)}" for line in _exception(self, record).splitlines()]
        return "\n".join(lines)

    def _paint(self, text: str, level: str) -> str:
        code = _COLOURS[level] if self._colour else ""
        return f"\x1b[{code}m{text}\x1b[0m" if code else text


def _level(record: logging.LogRecord) -> str:
    """The record's level as one of the four of the setting."""
    for level, word in ((logging.ERROR, "error"), (logging.WARNING, "warning"), (logging.INFO, "info")):
        if record.levelno >= level:
            return word
    return "debug"


def _fields_in_order(record: logging.LogRecord) -> list[tuple[str, object]]:
    fields: dict[str, Any] = getattr(record, _FIELDS, {})
    first = [name for name in ("connection", "process") if name in fields]
    rest = [name for name in fields if name not in first]
    return [(name, _plain(fields[name])) for name in (*first, *rest)]


def _plain(value: object) -> object:
    """A field's value as a line carries it. Of bytes only the number, since they are somebody's data."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"<{len(value)} bytes>"
    return _clean(str(value))


def _clean(text: str) -> str:
    text = redact(text)
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}... ({len(text)} characters)"


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def _quoted(value: object) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    return _printable(value) if _PLAIN.match(value) else json.dumps(_printable(value), ensure_ascii=False)


def _exception(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    if not record.exc_info or record.exc_info[0] is None:
        return ""
    text = redact(formatter.formatException(record.exc_info))
    return text if len(text) <= MAX_TRACEBACK else f"({len(text)} characters) ...{text[-MAX_TRACEBACK:]}"
