"""Requests to watch: where a replay begins and ends, what takes the place of what, and acknowledgements."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from mhnos_runtime.launch import STDERR
from mhnos_runtime.process.facts import UNKNOWN
from mhnos_runtime.process.ready import Readiness, Watch
from mhnos_runtime.server.auth.grants import Grant, Scope
from tests.server.connections.scene import RETENTION_BYTES, Scene

VIEWS = Grant("somebody", frozenset({Scope.VIEW}))


@pytest.mark.parametrize(
    ("fields", "start"),
    [
        ({}, 0),
        ({"from": "start"}, 0),
        ({"from": 3}, 3),
        ({"from": 10}, 10),
        ({"from": "end"}, 10),
        ({"tail": 4}, 6),
        ({"tail": 0}, 10),
        ({"tail": 999}, 0),
    ],
    ids=str,
)
async def test_where_a_replay_begins(scene: Scene, fields: dict[str, Any], start: int) -> None:
    program, client = scene.program(), await scene.client()
    program.write(b"0123456789")
    client.send("attach", pid=1000, **fields)
    attached = client.of("attached")[0]
    assert (attached["from"], attached["next"]) == (start, 10)
    replayed = b"".join(message["data"] for message in client.of("stdout"))
    assert replayed == b"0123456789"[start:]
    announced = [(message["from"], message["to"]) for message in client.of("replay")]
    assert announced == ([(start, 10)] if start < 10 else [])


async def test_an_attach_beyond_the_end_is_refused_and_leaves_what_was_there(scene: Scene) -> None:
    program, client = scene.program(), await scene.client()
    program.write(b"12")
    client.send("attach", pid=1000)
    client.send("attach", pid=1000, id=1, **{"from": 3})
    assert client.seen()[-1]["code"] == "invalid-argument"
    program.write(b"3")
    assert client.seen()[-1]["data"] == b"3"


async def test_the_replay_is_told_first_then_what_was_there_then_the_answer_then_what_comes(
    scene: Scene,
) -> None:
    program, client = scene.program(), await scene.client()
    program.write(b"old")
    program.write(b"bad", STDERR)
    client.send("attach", pid=1000, id=1)
    program.write(b"new")
    assert client.types()[1:] == ["replay", "stdout", "stderr", "attached", "stdout"]
    assert [message["replay"] for message in client.of("stdout", "stderr")] == [True, True, False]


async def test_a_client_of_1_0_is_told_of_no_replay(scene: Scene) -> None:
    program, client = scene.program(), await scene.client(newer=False)
    program.write(b"old")
    client.send("attach", pid=1000)
    program.write(b"new")
    assert client.types()[1:] == ["stdout", "attached", "stdout"]
    assert ["timestamp" in message for message in client.of("stdout")] == [True, False]


async def test_a_replay_of_what_is_no_longer_kept_begins_with_the_gap(scene: Scene) -> None:
    program, client = scene.program(), await scene.client()
    program.write(b"x" * (4 * RETENTION_BYTES))
    tail = program.process.log.tail
    client.send("attach", pid=1000, **{"from": 0})
    await client.until("attached")
    assert client.types()[1:3] == ["replay", "gap"]
    gap, replay = client.of("gap")[0], client.of("replay")[0]
    assert (gap["from"], gap["to"], replay["from"]) == (0, tail, tail)


async def test_a_second_attach_takes_the_place_of_the_first(scene: Scene) -> None:
    """Which is answered all the same, before it, and holds nothing any more."""
    program, client = scene.program(), await scene.client()
    program.write(b"x" * RETENTION_BYTES)
    client.transport.stall()
    client.send("attach", pid=1000, id=1)
    client.send("attach", pid=1000, id=2, **{"from": "end"})
    assert len(program.process.viewers) == 1
    client.transport.take()
    await client.until("attached", id=2)
    program.write(b"new")
    await client.until("stdout", data=b"new")
    assert [message["id"] for message in client.of("attached")] == [1, 2]
    assert program.process.log.hold == program.process.log.head


async def test_a_detach_ends_an_attach_that_is_under_way(scene: Scene) -> None:
    program, client = scene.program(), await scene.client()
    program.write(b"x" * RETENTION_BYTES)
    client.transport.stall()
    client.send("attach", pid=1000, id=1)
    client.send("detach", pid=1000, id=2)
    client.send("detach", pid=1000, id=3)
    assert program.process.viewers == {}
    client.transport.take()
    await client.until("detached", id=3)
    program.write(b"new")
    assert [message["id"] for message in client.of("attached", "detached")] == [1, 2, 3]
    assert client.types()[-1] == "detached"


async def test_what_has_ended_is_shown_and_its_end(scene: Scene) -> None:
    program, client = scene.program(), await scene.client()
    program.write(b"last")
    program.end(code=3)
    client.send("attach", pid=1000)
    assert client.types()[1:] == ["replay", "stdout", "attached", "exit"]
    assert (client.of("attached")[0]["status"], client.of("exit")[0]["code"]) == ("exited", 3)
    assert program.process.viewers == {}


async def test_the_answer_has_the_facts_and_later_news_follow(scene: Scene) -> None:
    starting = msgspec.structs.replace(UNKNOWN, watch=Watch(), ready=Readiness("starting"))
    program, client = scene.program(facts=starting), await scene.client()
    client.send("attach", pid=1000)
    assert client.of("attached")[0]["process"]["ready"] == {"state": "starting"}
    program.process.facts = msgspec.structs.replace(starting, ready=Readiness("ready"))
    program.wake()
    assert client.types()[1:] == ["attached", "ready"]


# Repaints


async def test_a_repaint_needs_what_a_resize_needs(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused whole."""
    repainted: list[object] = []
    monkeypatch.setattr(scene.terminals, "repaint", repainted.append)
    program = scene.program(pty=(80, 24))
    client, viewer = await scene.client(), await scene.client(grant=VIEWS)
    viewer.send("attach", pid=1000, repaint=True)
    assert viewer.seen()[-1]["code"] == "forbidden"
    assert (program.process.viewers, repainted) == ({}, [])
    client.send("attach", pid=1000, repaint=True)
    assert (client.types()[-1], repainted) == ("attached", [program.process])


# Acknowledgements


async def test_what_is_acknowledged_is_held_no_longer_and_never_again(scene: Scene) -> None:
    """Backwards, beyond what was sent, and for what is not watched they change nothing."""
    program, client = scene.program(), await scene.client()
    client.send("attach", pid=1000, acks=True)
    program.write(b"0123456789")
    log = program.process.log
    for offset, held in ((0, 0), (4, 4), (2, 4), (10, 10), (99, 10), (1 << 53, 10)):
        client.send("ack", pid=1000, offset=min(offset, (1 << 53) - 1))
        assert log.hold == held
    program.write(b"x" * 10)
    assert log.hold == 10
    client.send("ack", pid=5, offset=0)
    client.send("ack", pid=1000, offset=-1)
    assert client.seen()[-1]["code"] == "invalid-argument"
    assert log.hold == 10


async def test_who_acknowledges_once_acknowledges_from_then_on(scene: Scene) -> None:
    program, client = scene.program(), await scene.client()
    client.send("attach", pid=1000)
    program.write(b"12345")
    assert program.process.log.hold == 5
    client.send("ack", pid=1000, offset=2)
    program.write(b"67890")
    assert program.process.log.hold == 5
    client.send("ack", pid=1000, offset=8)
    assert program.process.log.hold == 8


async def test_a_viewer_may_attach_detach_and_acknowledge_what_its_grant_shows(scene: Scene) -> None:
    for pid in (1000, 1001):
        scene.program(pid)
    client = await scene.client(grant=replace(VIEWS, processes=frozenset({1000})))
    for pid in (1000, 1001):
        client.send("attach", pid=pid)
        client.send("ack", pid=pid, offset=0)
        client.send("detach", pid=pid)
    assert client.types()[1:] == ["attached", "detached", "error", "detached"]
