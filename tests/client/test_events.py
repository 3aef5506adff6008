"""Events as a Python program takes them: in order, over lost connections, with a bound, and told of what is
missing."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from mhnos_runtime.client import ConnectionLost, Events, RequestFailed
from mhnos_runtime.client import events as module
from mhnos_runtime.wire import messages as m
from tests.client.fake import Cut, FakeProcess, FakeServer, Json, Peer, runtime_for


class Listening(FakeServer):
    """A server that tells those who have subscribed."""

    def __init__(self) -> None:
        super().__init__()
        self.subscribed: list[Peer] = []
        self.handlers = {"subscribe": self._subscribe, "unsubscribe": self._unsubscribe}

    async def _subscribe(self, peer: Peer, request: Json) -> bool:
        self.subscribed.append(peer)
        await peer.send(type="subscribed", **({"id": request["id"]} if "id" in request else {}))
        return True

    async def _unsubscribe(self, peer: Peer, _request: Json) -> bool:
        self.subscribed.remove(peer)
        await peer.send(type="unsubscribed")
        return True

    async def happen(self, event: str, pid: int = 1000, **more: Any) -> None:
        process = {} if event == "missed" else {"process": FakeProcess().info(pid)}
        for peer in set(self.subscribed) & set(self.peers):
            with suppress(Cut, ConnectionError):
                await peer.send(type="process", event=event, time=1, **process, **more)


async def take(events: Events, count: int) -> list[tuple[str, int | None]]:
    """(event, pid or count) of the next ones."""
    return [told(await asyncio.wait_for(anext(events), 10)) for _ in range(count)]


def told(event: m.ProcessEvent) -> tuple[str, int | None]:
    if isinstance(event.process, m.ProcessInfo):
        return event.event, event.process.pid
    return event.event, event.count if isinstance(event.count, int) else None


async def test_events_come_in_order_from_the_subscription_on() -> None:
    async with Listening() as fake, runtime_for(fake) as runtime, runtime.events() as events:
        for pid in (1000, 1001):
            await fake.happen("started", pid)
        await fake.happen("missed", count=3)
        await fake.happen("ended")
        assert await take(events, 4) == [("started", 1000), ("started", 1001), ("missed", 3), ("ended", 1000)]


async def test_the_first_step_of_an_iteration_subscribes() -> None:
    async with Listening() as fake, runtime_for(fake) as runtime:
        found = []

        async def listen() -> None:
            async for event in runtime.events():
                found.append(told(event))
                if event.event == "ended":
                    break

        listening = asyncio.create_task(listen())
        await fake.until(lambda: bool(fake.subscribed))
        await fake.happen("started")
        await fake.happen("ended")
        await asyncio.wait_for(listening, 10)
        assert found == [("started", 1000), ("ended", 1000)]


async def test_several_listeners_share_a_subscription_and_the_last_one_ends_it() -> None:
    async with Listening() as fake, runtime_for(fake) as runtime:
        async with runtime.events() as one:
            async with runtime.events() as two:
                await fake.happen("started")
                assert await take(one, 1) == await take(two, 1) == [("started", 1000)]
            await fake.happen("ended")
            assert await take(one, 1) == [("ended", 1000)]
            with pytest.raises(StopAsyncIteration):
                await anext(two)
        one.close()
        await fake.until(lambda: not fake.subscribed[1:])
        assert [each["type"] for each in fake.requests].count("unsubscribe") == 1


async def test_after_a_lost_connection_it_subscribes_again_and_says_that_something_is_missing() -> None:
    async with Listening() as fake, runtime_for(fake) as runtime, runtime.events() as events:
        await fake.happen("started")
        assert await take(events, 1) == [("started", 1000)]
        fake.peers[0].cut()
        await fake.until(lambda: len(fake.subscribed) == 2 and bool(fake.peers))
        await fake.happen("ended")
        assert await take(events, 2) == [("missed", None), ("ended", 1000)]


async def test_a_subscription_that_was_cut_off_is_made_again_and_nothing_was_missed() -> None:
    async with Listening() as fake, runtime_for(fake) as runtime:

        async def cut(peer: Peer, _request: Json) -> bool:
            fake.handlers["subscribe"] = fake._subscribe
            peer.cut()
            return True

        fake.handlers["subscribe"] = cut
        async with runtime.events() as events:
            await fake.happen("started")
            assert await take(events, 1) == [("started", 1000)]


async def test_a_slow_listener_has_a_bound_and_is_told_how_many_it_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    async with Listening() as fake, runtime_for(fake) as runtime, runtime.events() as events:
        for pid in range(1000, 1010):
            await fake.happen("started", pid)
        await runtime.ping()
        assert await take(events, 1) == [("started", 1000)]
        await fake.happen("ended", 1009)
        await runtime.ping()
        assert await take(events, 4) == [
            ("started", 1001),
            ("started", 1002),
            ("missed", 7),
            ("ended", 1009),
        ]
        for pid in range(1000, 1005):
            await fake.happen("started", pid)
        await runtime.ping()
        assert await take(events, 4) == [("started", pid) for pid in (1000, 1001, 1002)] + [("missed", 2)]


async def test_who_may_not_listen_is_told_so() -> None:
    async with Listening() as fake, runtime_for(fake) as runtime:

        async def refuse(peer: Peer, request: Json) -> bool:
            await peer.send(type="error", id=request["id"], error="no", code="forbidden", retry=False)
            return True

        fake.handlers["subscribe"] = refuse
        with pytest.raises(RequestFailed, match="no"):
            await anext(runtime.events())


async def test_an_iteration_ends_with_the_client_after_what_has_come() -> None:
    async with Listening() as fake:
        async with runtime_for(fake) as runtime:
            events = await runtime.events().__aenter__()
            await fake.happen("started")
            await runtime.ping()
        assert await take(events, 1) == [("started", 1000)]
        with pytest.raises(ConnectionLost):
            await anext(events)
