"""Watches as a Python program takes them: over lost connections, with a bound, and nothing missed unseen."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from mhnos_runtime.client import ConnectionLost, RequestFailed
from mhnos_runtime.client import watches as module
from mhnos_runtime.client.pending import PendingRequests
from mhnos_runtime.client.watches import Watch, Watches
from mhnos_runtime.wire import messages as m
from tests.client.carrier import FakeCarrier
from tests.client.fake import Cut, FakeServer, Json, Peer, runtime_for


class Watching(FakeServer):
    """A server that tells of changes, under another number on each connection."""

    def __init__(self) -> None:
        super().__init__()
        self.watched: list[tuple[Peer, int, Json]] = []
        self.numbers = iter(range(7, 1000))
        self.refuses: dict[str, str] | None = None
        self.handlers = {"watchFiles": self._watch, "unwatchFiles": self._unwatch}

    async def _watch(self, peer: Peer, request: Json) -> bool:
        if self.refuses is not None:
            await peer.send(type="error", id=request["id"], **self.refuses)
            return True
        number = next(self.numbers)
        self.watched.append((peer, number, request))
        answer = {"watch": number, "path": request.get("path", "/"), "by": "inotify"}
        await peer.send(type="filesWatched", id=request["id"], **answer)
        await self.note()
        return True

    async def _unwatch(self, peer: Peer, request: Json) -> bool:
        self.watched = [each for each in self.watched if each[:2] != (peer, request["watch"])]
        await self.note()
        return True

    async def change(self, path: str, **more: Any) -> None:
        change = {"path": path, "what": "changed", "kind": "file", "version": "0" * 24}
        for peer, number, _ in self.watched:
            with suppress(Cut, ConnectionError):
                await peer.send(type="filesChanged", watch=number, changes=[change], **more)


async def take(watch: Watch) -> m.FilesChanged:
    return await asyncio.wait_for(anext(watch), 10)


def paths(event: m.FilesChanged) -> list[str]:
    return [change.path for change in event.changes]


async def test_changes_come_from_the_watch_on() -> None:
    async with Watching() as fake, runtime_for(fake) as runtime:
        async with runtime.files.watch("/src", ignore=["*.o"]) as changes:
            await fake.change("/src/a")
            await fake.change("/src/b")
            assert [paths(await take(changes)), paths(await take(changes))] == [["/src/a"], ["/src/b"]]
            assert {key: fake.watched[0][2].get(key) for key in ("path", "ignore")} == {
                "path": "/src",
                "ignore": ["*.o"],
            }
        await fake.until(lambda: not fake.watched)
        with pytest.raises(StopAsyncIteration):
            await take(changes)


async def test_each_watch_is_told_of_its_own() -> None:
    async with (
        Watching() as fake,
        runtime_for(fake) as runtime,
        runtime.files.watch("/a") as one,
        runtime.files.watch("/b") as other,
    ):
        peer, number, _ = fake.watched[1]
        await peer.send(type="filesChanged", watch=number, rescan=True)
        await peer.send(type="filesChanged", watch=999, rescan=True)
        assert (await take(other)).rescan
        fake.watched.pop()
        await fake.change("/a/x")
        assert paths(await take(one)) == ["/a/x"]


async def test_after_a_lost_connection_it_is_set_up_again_and_says_so() -> None:
    async with Watching() as fake, runtime_for(fake) as runtime, runtime.files.watch("/src") as changes:
        await fake.change("/src/a")
        assert not (await take(changes)).rescan
        for _ in range(3):
            fake.watched.clear()
            fake.peers[-1].cut()
            event = await take(changes)
            assert (event.rescan, event.changes) == (True, [])
            await fake.change("/src/b")
            assert paths(await take(changes)) == ["/src/b"]
            assert fake.watched[0][2]["path"] == "/src"


async def test_one_that_was_left_meanwhile_is_not_set_up_again() -> None:
    async with Watching() as fake, runtime_for(fake) as runtime:
        async with runtime.files.watch("/src"):
            pass
        await fake.until(lambda: not fake.watched)
        fake.peers[-1].cut()
        await runtime.ping()
        assert fake.watched == []


async def test_a_directory_that_is_gone_ends_it() -> None:
    async with Watching() as fake, runtime_for(fake) as runtime, runtime.files.watch("/src") as changes:
        await fake.change("/src/a", ended="No such file or directory: /src")
        assert (await take(changes)).ended == "No such file or directory: /src"
        with pytest.raises(StopAsyncIteration):
            await take(changes)


async def test_one_that_cannot_be_set_up_again_says_why() -> None:
    async with Watching() as fake, runtime_for(fake) as runtime, runtime.files.watch("/src") as changes:
        fake.refuses = {"error": "No such file or directory: /src", "code": "not-found"}
        fake.peers[-1].cut()
        with pytest.raises(RequestFailed, match="No such file"):
            await take(changes)


async def test_one_that_is_refused_raises() -> None:
    async with Watching() as fake, runtime_for(fake) as runtime:
        fake.refuses = {"error": "not a directory", "code": "not-a-directory"}
        with pytest.raises(RequestFailed, match="not a directory"):
            await take(runtime.files.watch("/file"))


async def test_a_slow_reader_has_to_look_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    async with Watching() as fake, runtime_for(fake) as runtime, runtime.files.watch() as changes:
        for number in range(5):
            await fake.change(f"/{number}")
        await runtime.ping()
        found = [await take(changes), await take(changes)]
        assert [(event.rescan, paths(event)) for event in found] == [(True, []), (False, ["/4"])]


async def test_the_end_of_the_client_ends_it() -> None:
    async with Watching() as fake:
        async with runtime_for(fake) as runtime:
            changes = runtime.files.watch()
            await changes.__aenter__()
        with pytest.raises(ConnectionLost, match="closed"):
            await take(changes)


async def test_one_that_is_left_while_it_is_set_up_again_is_given_back() -> None:
    carrier, pending = FakeCarrier(), PendingRequests()
    watches = Watches(carrier, pending)
    watch = Watch(watches, "/", None)
    entering = asyncio.create_task(watch.__aenter__())
    await carrier.answer(m.FilesWatched(1, "/", "inotify"))
    await entering
    (payload,) = watches.resume()
    watch.close()
    assert carrier.sent == [], "the new connection has no watch of this number"
    pending.settle(m.FilesWatched(2, "/", "inotify", id=msgspec.json.decode(payload, type=WithId).id))
    assert [message.watch for message in carrier.sent if isinstance(message, m.UnwatchFiles)] == [2]
    with pytest.raises(StopAsyncIteration):
        await take(watch)


class WithId(msgspec.Struct):
    id: msgspec.Raw


async def test_it_is_read_by_a_loop() -> None:
    async with Watching() as fake, runtime_for(fake) as runtime, runtime.files.watch() as changes:
        await fake.change("/a", ended="gone")
        assert [event.ended async for event in changes] == ["gone"]
