"""Requests to search files: in which folders, one at a time, and that a client that leaves ends its own."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import Any

import pytest

from mhnos_runtime.files.search import search
from mhnos_runtime.process.kinds import CACHES
from mhnos_runtime.server.auth.grants import Grant, Scope
from tests.server.connections.scene import Client, Scene

FILES = Grant("somebody", frozenset({Scope.FILES}))


async def ask(client: Client, **fields: Any) -> dict[str, Any]:
    client.send("searchFiles", **fields)
    return await client.until("fileSearchResult", len(client.of("fileSearchResult")) + 1)


def fill(scene: Scene, *paths: str, text: str = "one\nthe needle\n") -> None:
    for path in paths:
        (scene.files / path).parent.mkdir(parents=True, exist_ok=True)
        (scene.files / path).write_text(text)


async def test_files_and_lines(scene: Scene) -> None:
    fill(scene, "src/a.py", "src/b.txt")
    client = await scene.client()
    assert await ask(client, name="*.py", id=1) == {
        "type": "fileSearchResult",
        "matches": [{"path": "/src/a.py", "kind": "file"}],
        "searched": 3,
        "id": 1,
    }
    assert await ask(client, path="src", pattern="NEEDLE", ignoreCase=True, max=1, id=2) == {
        "type": "fileSearchResult",
        "matches": [{"path": "/src/a.py", "kind": "file", "line": 2, "column": 4, "text": "the needle"}],
        "searched": 1,
        "searchedBytes": 15,
        "truncated": True,
        "id": 2,
    }
    assert len((await ask(client, pattern="e n", fixed=True, name="*.txt"))["matches"]) == 1


async def test_words_parts_and_lines_around(scene: Scene) -> None:
    fill(scene, "a", text="needles\none\na needle, needle\nlast\n")
    client = await scene.client()
    around = await ask(client, pattern="needle", word=True, linesBefore=1, linesAfter=1)
    assert [(match["line"], match.get("column")) for match in around["matches"]] == [
        (2, None),
        (3, 2),
        (4, None),
    ]
    parts = await ask(client, pattern="needles?", onlyMatching=True)
    assert [(match["line"], match["column"], match["text"]) for match in parts["matches"]] == [
        (1, 0, "needles"),
        (3, 2, "needle"),
        (3, 10, "needle"),
    ]


async def test_what_is_ignored_and_what_kinds_make_is_passed_over(scene: Scene) -> None:
    cache = min(CACHES).strip("/")
    fill(scene, f"{cache}/x", "node_modules/x", "out/x", "x")
    fill(scene, ".gitignore", text="/out/\n")
    client = await scene.client()
    assert [match["path"] for match in (await ask(client, name="x"))["matches"]] == ["/x"]
    assert len((await ask(client, name="x", ignored=True))["matches"]) == 4


async def test_a_grant_for_folders_searches_in_them_alone(scene: Scene) -> None:
    fill(scene, "a/x", "b/x")
    limited = await scene.client(grant=replace(FILES, paths=("/a",), read_only=True))
    assert [match["path"] for match in (await ask(limited, path="/a", name="x"))["matches"]] == ["/a/x"]
    for number, path in enumerate(("/", "/b", "/a/../b")):
        limited.send("searchFiles", path=path, name="x", id=number)
        assert (await limited.until("error", id=number))["code"] == "forbidden"
    viewer = await scene.client(grant=Grant("somebody", frozenset({Scope.VIEW})))
    viewer.send("searchFiles", name="x", id=1)
    assert (await viewer.until("error", id=1))["code"] == "forbidden"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "invalid-argument"),
        ({"name": ""}, "invalid-argument"),
        ({"name": "#a"}, "invalid-argument"),
        ({"name": "!a"}, "invalid-argument"),
        ({"name": "a[b"}, "invalid-argument"),
        ({"name": "x" * 1025}, "invalid-argument"),
        ({"name": "*" * 1024 + "\ud83d"}, "invalid-argument"),
        ({"pattern": "("}, "invalid-argument"),
        ({"pattern": "(x{1000}){1000}"}, "invalid-argument"),
        ({"pattern": "x", "max": 0}, "invalid-argument"),
        ({"pattern": "x", "max": 10_001}, "invalid-argument"),
        ({"pattern": "x", "linesBefore": 21}, "invalid-argument"),
        ({"pattern": "x", "linesAfter": -1}, "invalid-argument"),
        ({"pattern": "x", "onlyMatching": True, "linesAfter": 1}, "invalid-argument"),
        ({"pattern": "x", "path": "a\0"}, "invalid-argument"),
        ({"pattern": "x", "path": "/../a"}, "outside-workspace"),
        ({"pattern": "x", "path": "/none"}, "not-found"),
    ],
    ids=lambda fields: str(fields)[:40],
)
async def test_what_is_no_search_is_refused(scene: Scene, fields: dict[str, Any], code: str) -> None:
    client = await scene.client()
    client.send("searchFiles", id=1, **fields)
    assert (await client.until("error", id=1))["code"] == code
    assert (await ask(client, pattern="x"))["matches"] == []


class Gate:
    """Holds searches after their first step, until they are given up or `open`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        self.begun, self.left, self.running, self.most = asyncio.Event(), asyncio.Event(), 0, 0
        self.open = False

        def held(*arguments: Any) -> Any:
            self.running += 1
            self.most = max(self.most, self.running)
            loop.call_soon_threadsafe(self.begun.set)
            try:
                while not self.open:
                    yield
                return (yield from search(*arguments))
            finally:
                self.running -= 1
                loop.call_soon_threadsafe(self.left.set)

        monkeypatch.setattr("mhnos_runtime.server.connections.requests.filesearch.search", held)


async def test_searches_of_a_client_wait_for_each_other_and_nothing_else_for_them(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(scene, "x")
    gate, first, second = Gate(monkeypatch), await scene.client(), await scene.client()
    for number in range(3):
        first.send("searchFiles", name="x", id=number)
    await gate.begun.wait()
    second.send("fsync", operation="push", files=[], id=1)
    await second.until("fsyncResult", id=1)
    second.send("ping", id=2)
    await second.until("pong", id=2)
    assert first.of("fileSearchResult") == []
    gate.open = True
    await first.until("fileSearchResult", 3)
    assert gate.most == 1


async def test_a_client_that_leaves_ends_its_search(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(scene, "x")
    before = len(os.listdir("/proc/self/fd"))
    gate, client = Gate(monkeypatch), await scene.client()
    for _ in range(3):
        client.send("searchFiles", pattern="needle")
    await gate.begun.wait()
    await client.leave()
    await asyncio.wait_for(gate.left.wait(), 20)
    await asyncio.to_thread(scene.work.close)
    assert gate.running == 0
    assert len(os.listdir("/proc/self/fd")) == before
