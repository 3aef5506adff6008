"""Events that come of their own accord, kept until somebody takes them. Must not know what they tell, nor a
connection."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from types import TracebackType
from typing import Generic, Self, TypeVar

from mhnos_runtime.client.errors import ClientError

T = TypeVar("T")


class Subscription(ABC, Generic[T]):
    """An async iterator, which begins when it is entered as a context, else with the first `anext`. It raises
    what beginning raises; behind what has come it ends, or raises why nothing more comes."""

    def __init__(self) -> None:
        self._begun = False
        self._over = False
        self._error: ClientError | None = None
        self._waiting: deque[T] = deque()
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        await self._begin()
        while not self._waiting:
            if self._over:
                raise self._error or StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._waiting.popleft()

    async def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            await self._enter()

    def close(self) -> None:
        """Take no more: the iteration ends behind what has come."""
        self._leave()
        self._over = True
        self._changed.set()

    def end(self, error: ClientError) -> None:
        """Nothing will come any more, and why."""
        self._error, self._over = error, True
        self._changed.set()

    # What one of them is

    @abstractmethod
    async def _enter(self) -> None:
        """Ask for events; they may come from the answer on."""

    @abstractmethod
    def _leave(self) -> None:
        """Ask for them no more."""

    def _add(self, event: T, *, last: bool = False) -> None:
        self._waiting.append(event)
        self._over = self._over or last
        self._changed.set()
