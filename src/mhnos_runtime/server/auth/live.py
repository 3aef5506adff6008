"""What goes on under each grant at this moment, so that a grant that ends takes it along. Knows neither
sockets nor stores."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator

from mhnos_runtime.observe import logs
from mhnos_runtime.server.auth.grants import Grant

#: The wall clock may be set meanwhile: how long nobody looks at it.
_LOOK_SECONDS = 60.0

_log = logs.get("server")


class Live:
    """now: seconds since the epoch."""

    def __init__(self, loop: asyncio.AbstractEventLoop, now: Callable[[], float] = time.time) -> None:
        self._loop = loop
        self._now = now
        self._entries: dict[str, set[_Entry]] = {}

    @contextlib.contextmanager
    def entered(self, grant: Grant, end: Callable[[], None]) -> Iterator[None]:
        """While something goes on under a grant. end: called once when the grant is revoked or expires, which
        may be before the body of the `with` begins."""
        here = self._entries.setdefault(grant.principal, set())
        entry = _Entry(end, lambda: self._leave(grant.principal, entry))
        here.add(entry)
        if grant.expires is not None:
            self._expire(entry, grant.expires)
        try:
            yield
        finally:
            entry.leave()

    def end(self, principal: str) -> None:
        """The grant was revoked."""
        for entry in self._entries.get(principal, set()).copy():
            entry.end()

    def _expire(self, entry: _Entry, at: float) -> None:
        left = at - self._now()
        if left > 0:
            entry.timer = self._loop.call_later(min(left, _LOOK_SECONDS), self._expire, entry, at)
        else:
            entry.end()

    def _leave(self, principal: str, entry: _Entry) -> None:
        here = self._entries.get(principal, set())
        here.discard(entry)
        if not here:
            self._entries.pop(principal, None)


class _Entry:
    """One thing that goes on. Ends once, or leaves before."""

    def __init__(self, end: Callable[[], None], on_leave: Callable[[], None]) -> None:
        self._end = end
        self._on_leave = on_leave
        self.timer: asyncio.TimerHandle | None = None

    def leave(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self._on_leave()

    def end(self) -> None:
        self.leave()
        try:
            self._end()
        except Exception:
            # One that cannot be ended must not save the others.
            _log.exception("defect at the end of a grant")
