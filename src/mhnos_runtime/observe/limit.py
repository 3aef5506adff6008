"""Bounds log lines that strangers can cause. Knows time and lines, not their text."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from mhnos_runtime.observe.logs import ROOT, Log, add_fields

#: For all strangers together.
LINES_A_MINUTE = 60
_MINUTE = 60.0


class Limiter:
    """At most LINES_A_MINUTE in any minute, for all callers together. clock: monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._times: deque[float] = deque(maxlen=LINES_A_MINUTE)

    def allow(self) -> bool:
        """Whether a line may be written now. A caller that may not counts it."""
        now = self._clock()
        if len(self._times) == LINES_A_MINUTE and now - self._times[0] < _MINUTE:
            return False
        self._times.append(now)
        return True


class LimitedLog:
    """The runtime's own lines about strangers. `unreported`: how many were dropped before this line."""

    def __init__(self, log: Log, limiter: Limiter) -> None:
        self._log = log
        self._limiter = limiter
        self._unreported = 0

    def warning(self, message: str, /, **fields: object) -> None:
        self._write(self._log.warning, message, fields)

    def exception(self, message: str, /, **fields: object) -> None:
        """An error with the exception that is being handled."""
        self._write(self._log.exception, message, fields)

    def _write(self, write: Callable[..., None], message: str, fields: dict[str, object]) -> None:
        if self._limiter.allow():
            left_out, self._unreported = self._unreported, 0
            write(message, **fields, **({"unreported": left_out} if left_out else {}))
        else:
            self._unreported += 1


class LimitForeign(logging.Filter):
    """For a handler: limits lines of libraries (asyncio, aiohttp), which strangers can cause."""

    def __init__(self, limiter: Limiter) -> None:
        super().__init__()
        self._limiter = limiter
        self._unreported = 0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name == ROOT or record.name.startswith(f"{ROOT}."):
            return True
        if not self._limiter.allow():
            self._unreported += 1
            return False
        if self._unreported:
            add_fields(record, unreported=self._unreported)
        self._unreported = 0
        return True
