"""How often something that is cut off is gone on with. Arithmetic and words; how to wait is given."""

from __future__ import annotations

from collections.abc import Callable

from mhnos_runtime.client.backoff import Backoff
from mhnos_runtime.client.errors import ClientError

#: In a row, without a byte more than before: some 35 s, in which a server or a network has come back, or
#: somebody has to look.
MAX_ATTEMPTS = 10


class Attempts:
    """Counts those that brought nothing. pause: waits so many seconds."""

    def __init__(self, pause: Callable[[float], None], backoff: Backoff | None = None) -> None:
        self._pause = pause
        self._backoff = backoff or Backoff()
        self._left = MAX_ATTEMPTS
        self._position = 0

    def failed(self, error: ClientError, position: int) -> None:
        """Wait before the next attempt. position: bytes that are safe now. Raises the error itself where
        another attempt cannot help, or enough of them have not."""
        if position > self._position:
            self._position, self._left = position, MAX_ATTEMPTS
            self._backoff.reset()
        self._left -= 1
        if not error.retry or self._left <= 0:
            raise error
        self._pause(self._backoff.next_delay_s())
