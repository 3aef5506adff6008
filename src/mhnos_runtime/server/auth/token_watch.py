"""Looks at the token's file from time to time: reports what is wrong, and what the next server has to know.

Knows the store and the log; nothing of requests.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from mhnos_runtime.observe import logs
from mhnos_runtime.server.auth.token_store import Known, TokenStore

#: Whoever changes the mode of the file to and fro must not fill the log.
REPORT_SECONDS = 60.0

_log = logs.get("server")


class TokenWatch:
    """tell: what is known, whenever that is new. clock: monotonic seconds."""

    def __init__(
        self,
        tokens: TokenStore,
        tell: Callable[[Known | None], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tokens = tokens
        self._tell = tell
        self._clock = clock
        self._told = tokens.known
        self._reported = ""
        self._reported_at = float("-inf")

    def look(self) -> None:
        self._tokens.follow()
        if self._tokens.known != self._told:
            self._told = self._tokens.known
            self._tell(self._told)
        problem = self._tokens.problem
        if problem != self._reported and self._clock() - self._reported_at >= REPORT_SECONDS:
            self._reported, self._reported_at = problem, self._clock()
            if problem:
                _log.warning("the token's file is not fit", problem=problem)
            else:
                _log.info("the token's file is fit again")
