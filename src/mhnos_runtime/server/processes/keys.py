"""Idempotency keys: a request that is repeated finds what it has started. Knows no plan, no supervisor."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable

import msgspec

from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.process.table import Process, ProcessTable
from mhnos_runtime.wire import messages as m


class Keys:
    """One start at a time for each key, and one process for as long as that is kept."""

    def __init__(self, table: ProcessTable) -> None:
        self._table = table
        self._locks: dict[str, asyncio.Lock] = {}

    async def once(self, request: m.Spawn, start: Callable[[], Awaitable[Process]]) -> Process:
        """What `start` gives, or the process that the same request with the same key has started.

        Raises InvalidRequest (key-conflict), and what `start` raises.
        """
        if request.key is None:
            return await start()
        # The second one waits here, and finds what the first has started.
        lock = self._locks.setdefault(request.key, asyncio.Lock())
        try:
            async with lock:
                return self._started_with(request.key, request) or await start()
        finally:
            if not lock.locked():
                self._locks.pop(request.key, None)

    def _started_with(self, key: str, request: m.Spawn) -> Process | None:
        for process in self._table:
            if process.facts.key is not None and process.facts.key.name == key:
                if process.facts.key.request != digest(request):
                    raise InvalidRequest(
                        "this key was used for another request",
                        code="key-conflict",
                        hint="a new request takes a new key",
                    )
                return process
        return None


def digest(request: m.Spawn) -> str:
    """What makes two requests the same: everything but the id."""
    same = msgspec.structs.replace(request, id=msgspec.UNSET)
    return hashlib.sha256(msgspec.json.encode(same, order="sorted")).hexdigest()
