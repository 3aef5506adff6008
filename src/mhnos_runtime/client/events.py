"""Events of processes, for those who listen to them over connections that come and go. Must not know
sockets."""

from __future__ import annotations

import time
from collections.abc import Sequence

from msgspec import UNSET

from mhnos_runtime.client.carrier import Carrier
from mhnos_runtime.client.errors import ClientError
from mhnos_runtime.client.subscription import Subscription
from mhnos_runtime.wire import messages as m

#: Events that wait for somebody who listens slowly; the server keeps some 2,000.
MAX_WAITING = 1024


class Listeners:
    """All who listen on one runtime: one subscription for them together."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._all: dict[Events, None] = {}

    async def enter(self, events: Events) -> None:
        """It is told of what happens from the server's answer on. Raises as Runtime.request."""

        def answered(_answer: m.Message) -> None:
            self._all[events] = None

        await self._carrier.request(m.Subscribe(), m.Subscribed, resend=True, on_answer=answered)

    def leave(self, events: Events) -> None:
        if self._all.pop(events, events) is None and not self._all:
            self._carrier.tell(m.Unsubscribe())

    def take(self, event: m.ProcessEvent) -> None:
        for each in self._all:
            each.take(event)

    def resume(self) -> Sequence[m.Message]:
        """What a new connection is told. Nobody knows what happened before it."""
        for each in self._all:
            each.take(_missed(None))
        return [m.Subscribe()] if self._all else []

    def end(self, error: ClientError) -> None:
        """Nothing will be told any more, and why."""
        for each in self._all:
            each.end(error)
        self._all.clear()


class Events(Subscription[m.ProcessEvent]):
    """What becomes of processes from now on, in order, each once: an async iterator, see `Runtime.events`.

    It subscribes when it is entered as a context, else with the first `anext`. Where something was not told,
    since there was no connection or this is read too slowly, comes an event "missed", whose `count` is unset
    where nobody knows it. Raises RequestFailed, and what ended the connection for good.
    """

    def __init__(self, listeners: Listeners) -> None:
        super().__init__()
        self._listeners = listeners
        self._dropped = 0  # since the last one that was kept; an event behind that one tells it

    async def _enter(self) -> None:
        await self._listeners.enter(self)

    def _leave(self) -> None:
        self._listeners.leave(self)

    # What the listeners use

    def take(self, event: m.ProcessEvent) -> None:
        """Behind too many that wait stands one that counts those that are dropped."""
        if len(self._waiting) - bool(self._dropped) < MAX_WAITING:
            self._dropped = 0
            self._add(event)
            return
        if self._dropped:
            self._waiting.pop()
        self._dropped += 1
        self._add(_missed(self._dropped))


def _missed(count: int | None) -> m.ProcessEvent:
    return m.ProcessEvent("missed", time.time_ns() // 1_000_000, count=UNSET if count is None else count)
