"""Idempotency keys: a repeated spawn request finds the process that the first one started. Knows no plan and
no supervisor."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from weakref import WeakValueDictionary

import msgspec

from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.process.table import Process, ProcessTable
from mhnos_runtime.wire import messages as m


class Keys:
    """One start at a time for each key, and one process for as long as the table keeps it."""

    def __init__(self, table: ProcessTable) -> None:
        self._table = table
        # A lock is there for as long as a request holds it or waits for it.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def once(self, request: m.Spawn, start: Callable[[], Awaitable[Process]]) -> Process:
        """Call `start`, unless the same request with the same key has started a process that is kept.

        Raises InvalidRequest (key-conflict) where the key is another request's, and what `start` raises.
        """
        if request.key is None:
            return await start()
        lock = self._locks.setdefault(request.key, asyncio.Lock())
        async with lock:
            return self._started_with(request.key, request) or await start()

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
    """Of everything in a request but its id: two requests with the same digest are the same."""
    same = msgspec.structs.replace(request, id=msgspec.UNSET)
    return hashlib.sha256(msgspec.json.encode(same, order="sorted")).hexdigest()
