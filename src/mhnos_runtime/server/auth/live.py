"""What goes on under each grant at this moment, so that a grant that ends takes it along. Knows neither
sockets nor stores."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator

from mhnos_runtime.server.auth.grants import Grant

#: The wall clock may be set meanwhile: how long nobody looks at it.
_LOOK_SECONDS = 60.0


class Live:
    """now: seconds since the epoch."""

    def __init__(self, loop: asyncio.AbstractEventLoop, now: Callable[[], float] = time.time) -> None:
        self._loop = loop
        self._now = now
        self._ends: dict[str, set[Callable[[], None]]] = {}

    @contextlib.contextmanager
    def entered(self, grant: Grant, end: Callable[[], None]) -> Iterator[None]:
        """While something goes on under a grant. end: called once when the grant is revoked or expires."""
        here = self._ends.setdefault(grant.principal, set())
        here.add(end)
        expiry = _Expiry(self._loop, self._now, grant.expires, lambda: self._end_one(grant, end))
        try:
            yield
        finally:
            expiry.stop()
            here.discard(end)
            if not here and self._ends.get(grant.principal) is here:
                del self._ends[grant.principal]

    def end(self, principal: str) -> None:
        """The grant was revoked."""
        for end in self._ends.pop(principal, set()).copy():
            end()

    def _end_one(self, grant: Grant, end: Callable[[], None]) -> None:
        if end in self._ends.get(grant.principal, ()):
            self._ends[grant.principal].discard(end)
            end()


class _Expiry:
    """Calls once, when the wall clock has reached a time."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        now: Callable[[], float],
        at: float | None,
        call: Callable[[], None],
    ) -> None:
        self._loop, self._now, self._at, self._call = loop, now, at, call
        self._timer: asyncio.TimerHandle | None = None
        if at is not None:
            self._look(at)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self, at: float) -> None:
        left = at - self._now()
        if left > 0:
            self._timer = self._loop.call_later(min(left, _LOOK_SECONDS), self._look, at)
        else:
            self._call()
