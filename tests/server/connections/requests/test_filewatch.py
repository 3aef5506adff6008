"""Requests to watch files: when they are answered, what comes after, for whom, and what they leave."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from mhnos_runtime import bounds
from mhnos_runtime.files.watch import FileWatch
from mhnos_runtime.server.auth.grants import Grant, Scope
from mhnos_runtime.server.connections.requests.filewatch import FileWatchRequests
from mhnos_runtime.server.connections.websocket import HIGH_WATER_BYTES
from tests.server.connections.scene import Client, Scene, turns_until

FILES = Grant("somebody", frozenset({Scope.FILES}), read_only=True)


async def watch(client: Client, **fields: Any) -> int:
    number = len(client.of("filesWatched"))
    client.send("watchFiles", **fields)
    return int((await client.until("filesWatched", number + 1))["watch"])


async def told(client: Client, path: str) -> dict[str, Any]:
    """The first change of a path."""
    async with asyncio.timeout(20):
        while True:
            for message in client.of("filesChanged"):
                for change in message.get("changes", []):
                    if change["path"] == path:
                        return dict(change)
            await client._change()


async def test_changes_are_told_from_the_answer_on(scene: Scene) -> None:
    client = await scene.client(grant=FILES)
    (scene.files / "src").mkdir()
    client.send("watchFiles", path="src", id=1)
    answer = await client.until("filesWatched")
    assert answer == {"type": "filesWatched", "watch": 1, "path": "/src", "by": "inotify", "id": 1}
    (scene.files / "src" / "a").write_text("x")
    (scene.files / "beside").write_text("x")
    change = await told(client, "/src/a")
    assert (change["what"], change["kind"], len(change["version"])) == ("created", "file", 24)
    client.send("unwatchFiles", watch=1, id=2)
    assert await client.until("filesUnwatched") == {"type": "filesUnwatched", "watch": 1, "id": 2}
    client.send("unwatchFiles", watch=1, id=3)
    assert (await client.until("error", id=3))["code"] == "unknown-watch"
    assert "/beside" not in str(client.of("filesChanged"))


async def test_a_watch_that_is_being_prepared_keeps_nobody_waiting(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, begin = asyncio.Event(), FileWatch.begin

    def slowly(self: FileWatch) -> Iterator[None]:
        while not go_on.is_set():
            yield
        yield from begin(self)

    monkeypatch.setattr(FileWatch, "begin", slowly)
    first, other = await scene.client(), await scene.client()
    first.send("watchFiles", id=1)
    first.send("ping", id=2)
    await other.answered()
    assert first.types() == ["connected"]
    go_on.set()
    await first.until("pong", id=2)
    assert first.types() == ["connected", "filesWatched", "pong"]


async def test_what_is_ignored_is_said_or_usual(scene: Scene) -> None:
    client = await scene.client()
    for folder in ("node_modules", ".openclaw/cache", "logs"):
        os.makedirs(scene.files / folder)
    usual, own = await watch(client), await watch(client, ignore=["*.log"])
    for path in ("node_modules/a", ".openclaw/cache/a", "x.log", "last"):
        (scene.files / path).write_text("x")
    seen: dict[int, set[str]] = {usual: set(), own: set()}
    async with asyncio.timeout(20):
        while not ({"/x.log", "/last"} <= seen[usual] and {"/node_modules/a", "/last"} <= seen[own]):
            for message in client.of("filesChanged"):
                seen[message["watch"]] |= {change["path"] for change in message.get("changes", [])}
            await asyncio.sleep(0)
    assert seen[usual] == {"/x.log", "/last"}
    assert seen[own] == {"/node_modules/a", "/.openclaw/cache/a", "/last"}


async def test_what_cannot_be_watched_is_an_error(scene: Scene) -> None:
    client = await scene.client(grant=replace(FILES, paths=("/mine",)))
    (scene.files / "mine").mkdir()
    (scene.files / "mine" / "file").touch()
    for number, (path, code) in enumerate(
        [
            ("/mine/none", "not-found"),
            ("/mine/file", "invalid-argument"),
            ("/", "forbidden"),
            ("/../etc", "outside-workspace"),
            ("/mine/a\0b", "invalid-argument"),
        ]
    ):
        client.send("watchFiles", path=path, id=number)
        assert (await client.until("error", id=number))["code"] == code
    await watch(client, path="/mine")
    viewer = await scene.client(grant=replace(FILES, scopes=frozenset({Scope.VIEW})))
    viewer.send("watchFiles", id=1)
    assert (await viewer.until("error"))["code"] == "forbidden"


async def test_one_connection_has_so_many(scene: Scene) -> None:
    client = await scene.client()
    for _ in range(bounds.WATCHES):
        await watch(client)
    client.send("watchFiles", id=1)
    assert (await client.until("error", id=1))["code"] == "limit-reached"
    client.send("unwatchFiles", watch=3)
    await watch(client)
    assert len(scene.watchers._watchers) == 1


@pytest.mark.parametrize("how", ["vanish", "leave", "grant ends"])
async def test_a_client_that_leaves_takes_its_watches_along(scene: Scene, how: str) -> None:
    client = await scene.client()
    await watch(client)
    client.send("watchFiles", ignore=["x"])  # this one may not have begun
    if how == "vanish":
        await client.vanish()
    elif how == "leave":
        await client.leave()
    else:
        client.connection.end(1008)
        await client.until_closed()
    await turns_until(lambda: not scene.watchers._watchers)


async def test_a_client_that_does_not_read_is_told_all_in_one_when_it_does(scene: Scene) -> None:
    slow, quick = await scene.client(), await scene.client()
    await watch(slow)
    await watch(quick)
    slow.transport.stall()
    # Pongs that are not taken fill what the transport holds.
    while slow.socket.writable:
        slow.send("ping", id="x" * 1000)
        await asyncio.sleep(0)
    assert len(slow.transport.sent) > HIGH_WATER_BYTES
    for name in ("a", "b", "c"):
        (scene.files / name).write_text("x")
        await told(quick, f"/{name}")
    os.unlink(scene.files / "a")
    (scene.files / "d").write_text("x")
    await told(quick, "/d")
    await turns_until(lambda: len(slow.connection.files.find(1).changes.named) == 4)
    slow.transport.take()
    (message,) = [await slow.until("filesChanged")]
    assert {change["path"]: change["what"] for change in message["changes"]} == {
        "/a": "removed",
        **dict.fromkeys(("/b", "/c", "/d"), "created"),
    }
    assert len(slow.of("filesChanged")) == 1


async def test_its_end_is_told(scene: Scene) -> None:
    client = await scene.client()
    (scene.files / "a").mkdir()
    number = await watch(client, path="/a")
    os.rename(scene.files / "a", scene.files / "b")
    message = await client.until("filesChanged")
    assert message["watch"] == number
    assert "removed, moved or replaced" in message["ended"]
    client.send("unwatchFiles", watch=number, id=1)
    assert (await client.until("error", id=1))["code"] == "unknown-watch"


def test_caches_of_kinds_are_passed_over_from_where_the_watch_is() -> None:
    def rules(path: str) -> list[str]:
        connection: Any = type("", (), {"grant": FILES})
        request: Any = type("", (), {"path": path, "ignore": None})
        nobody: Any = None
        key = FileWatchRequests(nobody, nobody)._key(connection, request)
        return [line for line in key.ignore if line.endswith("cache/") and line.startswith("/")]

    assert rules("/") == ["/.openclaw/cache/"]
    assert rules("/.openclaw") == ["/cache/"]
    assert rules("/src") == []
