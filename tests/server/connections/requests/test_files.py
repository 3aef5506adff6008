"""Requests to push and pull: answers of every size, clients that leave in the middle, and what is refused."""

from __future__ import annotations

import asyncio
import os
import threading
from dataclasses import replace
from typing import Any

import pytest

from mhnos_runtime.process.kinds import CACHES
from mhnos_runtime.server.auth.grants import EVERYTHING
from mhnos_runtime.server.connections.requests import files as module
from mhnos_runtime.server.connections.requests.files import WHOLE_ANSWER_BYTES
from mhnos_runtime.server.files import fsync
from mhnos_runtime.wire import websocket as rfc
from tests.server.connections.scene import Client, Scene, turns_until
from tests.server.raw import CONTINUATION, TEXT, frame

HEAD = b'{"type":"fsync","operation":"push","id":7,"files":['
LARGE = 2 << 20


def entry(path: str, size: int) -> bytes:
    return b'{"path":"%s","content":"%s"}' % (path.encode(), b"x" * size)


def partial(scene: Scene) -> list[str]:
    return [name for name in os.listdir(scene.files) if name.startswith(".")]


class Gate:
    """Holds every step of a push or pull in its thread until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        steps = getattr(module, name)

        def slowly(*arguments: Any) -> Any:
            for step in steps(*arguments):
                self.reached.set()
                self.open.wait(20)
                yield step

        monkeypatch.setattr(module, name, slowly)


# Pushes


async def test_a_push_is_answered_with_what_became_of_each(scene: Scene) -> None:
    client = await scene.client()
    files = [{"path": "/a/b", "content": "1"}, {"path": "/../x", "content": "2"}]
    client.send("fsync", operation="push", files=files, id=1)
    answer = await client.until("fsyncResult", id=1)
    assert (answer["operation"], answer["status"]) == ("push", "success")
    assert (answer["results"]["synced"], answer["results"]["failed"]) == (1, 1)
    assert (scene.files / "a" / "b").read_text() == "1"


async def test_a_client_of_1_0_gets_its_answer_twice(scene: Scene) -> None:
    client = await scene.client(newer=False)
    client.send("fsync", operation="push", files=[], id=1)
    client.send("fsync", operation="pull", id=2)
    await client.until("status", id=2)
    assert client.types()[1:] == ["fsyncResult", "status"] * 2


async def test_an_unknown_operation_is_shown(scene: Scene) -> None:
    client = await scene.client()
    client.send("fsync", operation="steal", id=1)
    answer = client.seen()[-1]
    assert (answer["operation"], answer["status"], answer["id"]) == ("steal", "error", 1)
    assert answer["error"] == "Unknown operation: steal"


async def test_a_large_push_is_carried_out_as_it_arrives(scene: Scene) -> None:
    client = await scene.client()
    data = HEAD + entry("/a", LARGE) + b"," + entry("/b", LARGE) + b"]}"
    whole = frame(TEXT, data)
    client.receive(whole[: LARGE + (LARGE >> 1)])
    await turns_until((scene.files / "a").exists)
    client.receive(whole[LARGE + (LARGE >> 1) :])
    answer = await client.until("fsyncResult", id=7)
    assert answer["results"]["synced"] == 2
    assert {path.stat().st_size for path in scene.files.iterdir()} == {LARGE}


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (HEAD + entry("/a", LARGE) + b"," + b"x" * 100, "invalid-message"),
        (HEAD + entry("/a", LARGE), "invalid-message"),
        (HEAD.replace(b"push", b"pull").replace(b'"files":[', b'"x":[' + b" " * LARGE) + b"]}", "too-large"),
        (b'{"type":"fsync","id":7,"operation":"pull"' + b" " * LARGE + b"}", "too-large"),
        (HEAD.replace(b'"files"', b'"x":"' + b"y" * LARGE + b'","files"') + b"]}", "too-large"),
    ],
    ids=["no JSON in the middle", "cut", "a value in a pull", "a pull", "a value that is no content"],
)
async def test_a_large_push_that_is_none_is_answered_and_the_next_request_too(
    scene: Scene, data: bytes, code: str
) -> None:
    """Files that are whole by then stay; of what is not nothing does."""
    client = await scene.client()
    client.raw(TEXT, data)
    assert (await client.until("error"))["code"] == code
    await client.answered()
    assert client.transport.reading
    await turns_until(lambda: partial(scene) == [])
    assert os.listdir(scene.files) in ([], ["a"])


async def test_what_is_wrong_shows_before_all_has_come_and_the_rest_is_thrown_away(scene: Scene) -> None:
    client = await scene.client()
    whole = frame(TEXT, HEAD + b"nonsense" + b"x" * LARGE)
    client.receive(whole[: LARGE >> 1])
    await client.until("error")
    client.receive(whole[LARGE >> 1 :])
    await client.answered()
    assert client.types() == ["connected", "error", "pong"]


@pytest.mark.parametrize("large", [True, False], ids=["large", "small"])
@pytest.mark.parametrize("leave", [Client.leave, Client.vanish])
async def test_a_client_that_leaves_during_a_push_leaves_no_half_of_a_file(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, large: bool, leave: Any
) -> None:
    gate, client = Gate(monkeypatch, "write"), await scene.client()
    if large:
        client.receive(frame(TEXT, HEAD + entry("/a", LARGE) + b"]}")[: LARGE >> 1])
    else:
        client.send("fsync", operation="push", files=[{"path": "/a", "content": "x"}] * 3)
    await asyncio.to_thread(gate.reached.wait, 20)
    # The rest of an upload does not come: of a message only whole ones, or none, are followed by a goodbye.
    await (Client.vanish if large else leave)(client)
    gate.open.set()
    await turns_until(lambda: os.listdir(scene.files) == [])
    other = await scene.client()
    other.send("fsync", operation="push", files=[{"path": "/b", "content": "x"}], id=2)
    await other.until("fsyncResult", id=2)
    assert os.listdir(scene.files) == ["b"]


async def test_a_push_that_is_too_large_in_the_end_leaves_no_half_of_a_file(scene: Scene) -> None:
    """Its fragments do not say so before. A file that was whole by then stays."""
    client = await scene.client(max_bytes=2 * LARGE)
    client.receive(frame(TEXT, HEAD + entry("/a", LARGE), final=False))
    client.receive(frame(CONTINUATION, b"," + entry("/b", LARGE >> 1), final=False))
    await turns_until(lambda: len(os.listdir(scene.files)) == 1)
    client.receive(frame(CONTINUATION, entry("/c", LARGE >> 1)))
    await client.until("close frame")
    assert client.close_code == rfc.TOO_BIG
    await client.vanish()
    await turns_until(lambda: os.listdir(scene.files) == ["a"])


async def test_a_grant_that_ends_ends_a_push(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, client = Gate(monkeypatch, "write"), await scene.client()
    client.receive(frame(TEXT, HEAD + entry("/a", LARGE) + b"]}")[: LARGE >> 1])
    await asyncio.to_thread(gate.reached.wait, 20)
    client.connection.end(1008)
    gate.open.set()
    await turns_until(lambda: os.listdir(scene.files) == [])
    assert client.types() == ["connected", "close frame"]


@pytest.mark.parametrize("operation", ["push", "pull"])
async def test_a_grant_for_some_paths_is_none_for_all(scene: Scene, operation: str) -> None:
    client = await scene.client(grant=replace(EVERYTHING, paths=("/a",)))
    client.send("fsync", operation=operation, files=[{"path": "/a/x", "content": "x"}], id=1)
    assert (client.seen()[-1]["code"], client.seen()[-1]["id"]) == ("forbidden", 1)


# Pulls


async def test_a_small_pull_comes_whole(scene: Scene) -> None:
    (scene.files / "a").write_bytes(b"12")
    client = await scene.client()
    client.send("fsync", operation="pull", id=1)
    answer = await client.until("fsyncResult", id=1)
    assert [(file["path"], file["content"]) for file in answer["files"]] == [("/a", [49, 50])]


async def test_caches_of_kinds_stay_where_they_are(scene: Scene) -> None:
    for path in CACHES:
        folder = scene.files / path[1:]
        folder.mkdir(parents=True)
        (folder / "x").write_text("x")
    client = await scene.client()
    client.send("fsync", operation="pull", id=1)
    answer = await client.until("fsyncResult", id=1)
    assert not {entry["path"] for entry in answer["files"]} & set(CACHES)


def lay_out(scene: Scene) -> dict[str, bytes]:
    """Files of which the answer comes in pieces."""
    contents = {f"/{number}": os.urandom(WHOLE_ANSWER_BYTES // 3) for number in range(3)}
    for path, data in contents.items():
        (scene.files / path[1:]).write_bytes(data)
    return contents


def found(answer: dict[str, Any]) -> dict[str, bytes]:
    return {file["path"]: bytes(file["content"]) for file in answer["files"]}


async def test_a_large_pull_comes_in_pieces_behind_the_answers_before_it(scene: Scene) -> None:
    """And before those behind it, though they were there first."""
    contents = lay_out(scene)
    program, client = scene.program(), await scene.client()
    client.send("kill", pid=1000, signal="TERM")
    client.send("fsync", operation="pull", id=1)
    client.send("ping")
    await asyncio.sleep(0)
    program.end()
    await client.until("pong")
    assert client.types()[1:] == ["killed", "fsyncResult", "pong"]
    assert found(client.of("fsyncResult")[0]) == contents


async def test_a_large_pull_of_a_client_of_1_0_comes_twice(scene: Scene) -> None:
    contents = lay_out(scene)
    client = await scene.client(newer=False)
    client.send("fsync", operation="pull", id=1)
    client.send("ping")
    await client.until("pong")
    assert client.types()[1:] == ["fsyncResult", "status", "pong"]
    assert [found(answer) for answer in client.of("fsyncResult", "status")] == [contents] * 2


async def test_a_pull_goes_at_the_pace_of_its_reader(scene: Scene) -> None:
    lay_out(scene)
    client, other = await scene.client(), await scene.client()
    client.transport.stall()
    client.send("fsync", operation="pull", id=1)
    await turns_until(lambda: not client.socket.writable)
    sent = len(client.transport.sent)
    await other.answered()
    assert len(client.transport.sent) == sent
    client.transport.take()
    await client.until("fsyncResult", id=1)


@pytest.mark.parametrize("stalled", [True, False], ids=["not reading", "reading"])
async def test_a_client_that_leaves_during_a_pull(scene: Scene, stalled: bool) -> None:
    """The walk over the files ends with it: no descriptor stays open."""
    lay_out(scene)
    before = len(os.listdir("/proc/self/fd"))
    client = await scene.client()
    if stalled:
        client.transport.stall()
    client.send("fsync", operation="pull", id=1)
    if stalled:
        await turns_until(lambda: not client.socket.writable)
    await client.vanish()
    await turns_until(lambda: len(os.listdir("/proc/self/fd")) <= before)
    assert client.of("fsyncResult") == []


async def test_a_pull_that_is_too_much_is_an_error(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsync, "MAX_PULL_BYTES", 10)
    for name in ("a", "b"):
        (scene.files / name).write_text("x" * 6)
    client = await scene.client()
    client.send("fsync", operation="pull", id=1)
    answer = await client.until("fsyncResult", id=1)
    assert (answer["status"], "files" in answer) == ("error", False)
    # In pieces what came before it cannot be taken back.
    monkeypatch.setattr(module, "WHOLE_ANSWER_BYTES", 1)
    client.send("fsync", operation="pull", id=2)
    answer = await client.until("fsyncResult", id=2)
    assert (answer["status"], len(answer["files"])) == ("error", 1)


async def test_pulls_of_one_client_come_one_after_the_other(scene: Scene) -> None:
    contents = lay_out(scene)
    client = await scene.client()
    for number in range(3):
        client.send("fsync", operation="pull", id=number)
    await client.until("fsyncResult", id=2)
    assert [answer["id"] for answer in client.of("fsyncResult")] == [0, 1, 2]
    assert found(client.of("fsyncResult")[2]) == contents
