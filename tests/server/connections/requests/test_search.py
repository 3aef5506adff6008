"""Requests to search: whose output, in which order, how much of it, and that a client that leaves ends its
own."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from mhnos_runtime.launch import STDERR
from mhnos_runtime.server.auth.grants import Grant, Scope
from mhnos_runtime.server.connections.requests import search
from mhnos_runtime.server.processes.searching import LineSearch
from tests.server.connections.scene import RETENTION_BYTES, Client, Scene

VIEWS = Grant("somebody", frozenset({Scope.VIEW}))


async def lines(client: Client, **fields: object) -> list[tuple[int, str]]:
    client.send("search", **fields)
    result = await client.until("searchResult", len(client.of("searchResult")) + 1)
    return [(match["pid"], match["line"]) for match in result["matches"]]


async def test_all_kept_output_is_searched_by_pid_and_offset(scene: Scene) -> None:
    first, second = scene.program(1000), scene.program(1001)
    client = await scene.client()
    second.write(b"error two\n", now_ms=5000)
    first.write(b"fine\nerror", now_ms=7000)
    first.write(b"ERROR err\n", STDERR, now_ms=8000)
    first.write(b" one\nfine\nerror unfinished", now_ms=9000)
    first.end()
    client.send("search", pattern="error", ignoreCase=True)
    await client.until("searchResult")
    result = client.of("searchResult")[0]
    assert result["matches"] == [
        {"pid": 1000, "stream": "stdout", "offset": 5, "time": 7000, "line": "error one"},
        {"pid": 1000, "stream": "stderr", "offset": 10, "time": 8000, "line": "ERROR err"},
        {"pid": 1000, "stream": "stdout", "offset": 30, "time": 9000, "line": "error unfinished"},
        {"pid": 1001, "stream": "stdout", "offset": 0, "time": 5000, "line": "error two"},
    ]
    assert result["searchedBytes"] == first.writer.head + second.writer.head
    assert "truncated" not in result


async def test_only_what_is_asked_for_and_shown_by_the_grant_is_searched(scene: Scene) -> None:
    for pid in (1000, 1001, 1002):
        scene.program(pid).write(b"line\n")
    client = await scene.client()
    assert await lines(client, pattern="l", processes=[1002, 1000, 1002]) == [(1000, "line"), (1002, "line")]
    limited = await scene.client(grant=replace(VIEWS, processes=frozenset({1001})))
    assert await lines(limited, pattern="l") == [(1001, "line")]
    for pid in (1000, 99):
        limited.send("search", id=pid, pattern="l", processes=[1001, pid])
        await limited.until("error", id=pid)
        assert limited.of("error")[-1]["code"] == "unknown-process"


@pytest.mark.parametrize("grant", [Grant("somebody", frozenset({Scope.FILES}))])
async def test_who_may_not_view_may_not_search(scene: Scene, grant: Grant) -> None:
    client = await scene.client(grant=grant)
    client.send("search", pattern="l")
    client.send("timeline", pid=1000)
    assert [message["code"] for message in client.of("error")] == ["forbidden", "forbidden"]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"pattern": ""},
        {"pattern": "x" * 1025},
        {"pattern": "x" * 1_000_000},
        {"pattern": "("},
        {"pattern": "(x{1000}){1000}"},
        {"pattern": "\ud83d", "max": 0},
        {"pattern": "x", "max": 10_001},
        {"pattern": "x", "processes": [1] * 1025},
        {"pattern": "x", "processes": "all"},
    ],
    ids=lambda fields: str(fields)[:40],
)
async def test_what_is_no_search_is_refused(scene: Scene, fields: dict[str, object]) -> None:
    client = await scene.client()
    client.send("search", id=1, **fields)
    await client.until("error", id=1)
    assert client.of("error")[0]["code"] == "invalid-argument"
    assert await lines(client, pattern="x") == []


async def test_a_search_that_found_too_much_says_so(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.program(1000).write(b"x\n" * 50)
    scene.program(1001).write(b"x\n")
    client = await scene.client()
    assert len(await lines(client, pattern="x", max=50)) == 50
    assert client.of("searchResult")[-1]["truncated"]
    monkeypatch.setattr(search, "MAX_ANSWER_BYTES", 10)
    assert len(await lines(client, pattern="x")) == 10
    monkeypatch.setattr(search, "MAX_SECONDS", -1)
    assert await lines(client, pattern="x") == []
    assert client.of("searchResult")[-1]["truncated"]


async def test_output_that_is_overwritten_meanwhile_joins_no_lines(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, client = scene.program(), await scene.client()
    monkeypatch.setattr(search, "BATCH_CHUNKS", 1)
    program.write(b"head", now_ms=1)
    program.write(b" and what follows", now_ms=5000)
    feed = LineSearch.feed

    def overwriting(self: LineSearch, chunks: object) -> object:
        if program.writer.head < 100:
            program.write(b"x" * 3 * RETENTION_BYTES + b"\ntail\n", now_ms=9000)
        return feed(self, chunks)  # type: ignore[arg-type]

    monkeypatch.setattr(LineSearch, "feed", overwriting)
    assert await lines(client, pattern="head|tail") == [(1000, "head")]


async def test_a_process_that_is_forgotten_meanwhile_is_left_out(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, client = scene.program(), await scene.client()
    scene.program(1001).write(b"line\n")
    program.write(b"line\n")
    monkeypatch.setattr(scene.table, "get", lambda pid, *_: None if pid == 1000 else program)
    assert await lines(client, pattern="l") == []


async def test_searches_of_a_client_wait_for_each_other_and_not_its_other_requests(scene: Scene) -> None:
    scene.program().write(b"line\n")
    client = await scene.client()
    for number in range(5):
        client.send("search", id=number, pattern="l")
    client.send("attach", pid=1000)
    assert len(scene.table.get(1000).viewers) == 1  # type: ignore[union-attr]
    await client.until("attached")
    assert client.types()[-6:] == [*["searchResult"] * 5, "attached"]


async def test_a_client_that_leaves_ends_its_search(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.program().write(b"line\n" * 1000)
    begun, left = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def endless(self: LineSearch, chunks: object) -> object:
        loop.call_soon_threadsafe(begun.set)
        try:
            while True:
                yield None
        finally:
            loop.call_soon_threadsafe(left.set)

    monkeypatch.setattr(LineSearch, "feed", endless)
    client = await scene.client()
    client.send("search", pattern="l")
    await begun.wait()
    await client.leave()
    await asyncio.wait_for(left.wait(), 20)


async def test_a_timeline_is_told_in_pages(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    program, client = scene.program(), await scene.client()
    for number in range(4):
        program.write(b"x" * 10, now_ms=1000 * number)
    monkeypatch.setattr("mhnos_runtime.output.layout.TIMES_SEGMENTS", 3)
    client.send("timeline", pid=1000, id=1)
    client.send("timeline", pid=1000, id=2, **{"from": 30})
    client.send("timeline", pid=7, id=3)
    first, second = client.of("timelineAnswer")
    assert (first["times"], first["next"]) == ([[0, 0], [10, 1000], [20, 2000]], 30)
    assert second["times"] == [[30, 3000]]
    assert "next" not in second
    assert client.of("error")[0]["code"] == "unknown-process"
