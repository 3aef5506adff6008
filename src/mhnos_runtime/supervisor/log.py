"""The supervisor's own log lines, in the same two forms as the server's. Knows no logging framework."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from datetime import UTC, datetime


class Log:
    """Writes one line an event to stderr: text for people, JSON elsewhere. A full or closed stderr is
    ignored."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json

    def write(self, level: str, message: str, **fields: object) -> None:
        line = self._json(level, message, fields) if self._as_json else self._text(level, message, fields)
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    @staticmethod
    def _json(level: str, message: str, fields: dict[str, object]) -> str:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return json.dumps({"ts": now, "level": level, "msg": message, "logger": "supervisor", **fields})

    @staticmethod
    def _text(level: str, message: str, fields: dict[str, object]) -> str:
        pairs = "".join(f" {name}={value}" for name, value in fields.items())
        return f"{time.strftime('%H:%M:%S')} {level:<7} {message}{pairs}"
