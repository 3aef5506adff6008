"""One connection: its requests in order, what it makes wait, and its end, however that comes."""

from __future__ import annotations

import asyncio
import json
import signal
from dataclasses import replace

import msgspec
import pytest

from mhnos_runtime.errors import NotFound
from mhnos_runtime.process.facts import UNKNOWN
from mhnos_runtime.server.auth.grants import EVERYTHING, Grant, Scope
from mhnos_runtime.server.connections import replies, sender
from mhnos_runtime.server.files.fsync import MAX_WAITING_BYTES
from mhnos_runtime.wire import messages as m
from mhnos_runtime.wire import websocket as rfc
from tests.server.connections.scene import RETENTION_BYTES, Client, Scene, turns_until
from tests.server.raw import BINARY, CONTINUATION, TEXT, frame

VIEWS = Grant("somebody", frozenset({Scope.VIEW}))
#: The beginning of a push that is larger than any other message may be.
LARGE = b'{"type":"fsync","operation":"push","id":7,"files":[{"path":"/x","content":"'


def push_of(size: int, head: bytes = LARGE) -> bytes:
    return head + b"x" * (size - len(head) - 4) + b'"}]}'


# Order


async def test_answers_come_in_the_order_of_requests_also_where_one_takes_time(scene: Scene) -> None:
    client = await scene.client()
    start = scene.starting.next()
    client.send("ping", id=1)
    client.send("spawn", id=2, attach=False)
    client.send("ping", id=3)
    client.type(99, b"", kind=9)
    assert [message.get("id") for message in client.seen()[1:]] == [1]
    start.set_result(scene.program().process)
    await client.until("error")
    assert [message.get("id") for message in client.seen()[1:]] == [1, 2, 3, None]


async def test_a_request_that_waits_for_something_else_keeps_no_later_one_waiting(scene: Scene) -> None:
    """The answers still come in order: what a kill waits for is sent meanwhile."""
    program, client = scene.program(), await scene.client()
    client.send("attach", pid=1000)
    client.send("kill", pid=1000, signal="TERM", id="kill")
    client.send("write", pid=1000, data="on", id="write")
    client.send("ping", id="ping")
    assert program.typed() == b"on"
    assert "pong" not in client.types()
    program.end()
    await client.until("pong")
    assert client.types()[-3:] == ["exit", "killed", "pong"]


async def test_what_is_no_request_is_answered_in_its_turn(scene: Scene) -> None:
    client = await scene.client()
    client.raw(TEXT, b"no JSON")
    client.send("ping", id=1)
    client.send("nothing")
    assert [message.get("code", message["type"]) for message in client.seen()[1:]] == [
        "invalid-message",
        "pong",
        "unknown-type",
    ]


# What one client may have the server keep


async def test_a_flood_of_requests_waits_in_the_network_while_one_takes_time(scene: Scene) -> None:
    client = await scene.client()
    start = scene.starting.next()
    client.send("spawn", attach=False)
    client.receive(b"".join(frame(TEXT, b'{"type":"ping","id":%d}' % number) for number in range(2000)))
    await client.until_reading(False)
    assert client.types() == ["connected"]
    start.set_result(scene.program().process)
    await client.until("pong", 2000)
    assert [message["id"] for message in client.of("pong")] == list(range(2000))
    await client.until_reading(True)


async def test_so_many_answers_are_outstanding_and_no_more(scene: Scene) -> None:
    program, client = scene.program(), await scene.client()
    for number in range(replies.MAX_WAITING + 10):
        client.send("kill", pid=1000, signal="TERM", id=number)
    # A pong costs nothing to wait for, so that what is counted is what was begun.
    assert len([call for call in scene.link.called if call[0] == "kill"]) == replies.MAX_WAITING
    assert not client.transport.reading
    program.end()
    await client.until("killed", replies.MAX_WAITING + 10)
    assert [message["id"] for message in client.of("killed")] == list(range(replies.MAX_WAITING + 10))
    await client.until_reading(True)


async def test_who_reads_no_answers_is_not_read_either(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "MAX_ANSWER_BYTES", 10_000)
    client = await scene.client()
    client.transport.stall()
    asked = 0
    while client.transport.reading:
        client.send("ping", id=f"{asked:01000}")
        asked += 1
    # What the transport takes, the answers that wait, and the one that was too much.
    assert asked * 1000 < 64 * 1024 + 10_000 + 4000
    client.send("ping", id="last")
    client.transport.take()
    await client.until("pong", id="last")
    assert len(client.of("pong")) == asked + 1
    await client.until_reading(True)


async def test_a_large_push_waits_behind_a_request_that_takes_time(scene: Scene) -> None:
    """Its first part is kept, and the rest waits in the network, however much of it comes."""
    client = await scene.client()
    start = scene.starting.next()
    client.send("spawn", attach=False, id=1)
    data = frame(TEXT, push_of(rfc.SMALL_MESSAGE_BYTES + 5))
    sent = 0
    while client.transport.reading:
        client.receive(data[sent : sent + 65536])
        sent += 65536
    assert sent <= MAX_WAITING_BYTES + 2 * 65536
    client.receive(data[sent:])
    assert "fsyncResult" not in client.types()
    start.set_result(scene.program().process)
    answer = await client.until("fsyncResult", id=7)
    assert (client.types()[-2], answer["results"]["synced"]) == ("spawned", 1)
    await client.until_reading(True)


# Large messages


@pytest.mark.parametrize(
    ("opcode", "head"),
    [(TEXT, b'{"type":"write","id":7,"data":"'), (TEXT, b"no JSON"), (BINARY, LARGE)],
    ids=["another type", "no JSON", "binary"],
)
async def test_only_a_push_may_be_large(scene: Scene, opcode: int, head: bytes) -> None:
    """The rest is thrown away, and the connection goes on."""
    client = await scene.client()
    client.raw(opcode, push_of(3 << 20, head))
    client.send("ping")
    assert (await client.until("error"))["code"] == "too-large"
    await client.until("pong")
    assert client.types() == ["connected", "error", "pong"]


async def test_a_large_push_that_the_grant_does_not_have_is_refused_with_its_id(scene: Scene) -> None:
    client = await scene.client(grant=VIEWS)
    client.raw(TEXT, push_of(3 << 20))
    error = await client.until("error", id=7)
    assert error["code"] == "forbidden"
    await client.answered()
    assert list(scene.files.iterdir()) == []


async def test_a_large_push_comes_in_fragments_with_pings_between(scene: Scene) -> None:
    client = await scene.client()
    data = push_of(2 << 20)
    client.receive(frame(TEXT, data[:1000], final=False))
    client.receive(frame(9, b"there?") + frame(CONTINUATION, data[1000 : 1 << 20], final=False))
    client.receive(frame(CONTINUATION, data[1 << 20 :]))
    await client.until("fsyncResult", id=7)
    assert (scene.files / "x").read_bytes() == b"x" * (len(data) - len(LARGE) - 4)


async def test_a_message_above_every_bound_closes_the_connection(scene: Scene) -> None:
    client = await scene.client()
    client.receive(frame(TEXT, b"", length=129 << 20))
    await client.vanish()
    assert await client.until_closed() == rfc.TOO_BIG


# The end


async def test_who_says_goodbye_holds_nothing_and_who_vanishes_may_come_back(scene: Scene) -> None:
    program = scene.program()
    for leave, kept in ((Client.leave, 0), (Client.vanish, 1)):
        client = await scene.client()
        client.send("attach", pid=1000)
        await leave(client)
        assert not program.process.viewers
        assert program.clock.waiting == kept


async def test_a_client_that_leaves_while_a_process_is_started_for_it(scene: Scene) -> None:
    """The process lingers, with nobody to watch it, and later requests are not begun."""
    client = await scene.client()
    start = scene.starting.next()
    client.send("spawn", lingerMs=0)
    client.send("spawn")
    await client.vanish()
    program = scene.program()
    start.set_result(program.process)
    await asyncio.sleep(0)
    assert len(scene.starting.asked) == 1
    assert not program.process.viewers


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("revoked", [True, False], ids=["revoked", "vanished"])
async def test_a_client_that_leaves_just_when_its_process_is_there(
    scene: Scene, turns: int, revoked: bool
) -> None:
    """In whichever turn of the event loop, nobody watches the process in the end, and it lingers."""
    client = await scene.client()
    start = scene.starting.next()
    client.send("spawn")
    await turns_until(lambda: bool(scene.starting.asked))
    program = scene.program(facts=msgspec.structs.replace(UNKNOWN, linger_ms=0))
    start.set_result(program.process)
    for _ in range(turns):
        await asyncio.sleep(0)
    if revoked:
        client.connection.end(1008)
    else:
        client.socket.connection_lost(None)
    await turns_until(lambda: ("kill", 1000, signal.SIGTERM, "idle", True) in scene.link.called)
    assert program.process.viewers == {}


async def test_a_client_that_leaves_while_a_replay_is_under_way(scene: Scene) -> None:
    program = scene.program()
    program.write(b"x" * RETENTION_BYTES)
    client, other = await scene.client(), await scene.client()
    client.transport.stall()
    client.send("attach", pid=1000, id=1)
    other.send("attach", pid=1000, id=2)
    await client.vanish()
    assert len(program.process.viewers) == 1
    await other.until("attached", id=2)
    assert client.of("attached") == []


async def test_a_grant_that_ends_takes_all_that_waits_along(scene: Scene) -> None:
    """Nothing that was asked before is done, answered or shown any more."""
    program, client = scene.program(), await scene.client()
    start = scene.starting.next()
    client.send("attach", pid=1000)
    client.send("kill", pid=1000, signal="TERM")
    client.send("spawn", id=1)
    client.send("write", pid=1000, data="late")
    client.receive(frame(TEXT, push_of(3 << 20))[: 2 << 20])
    client.connection.end(1008)
    program.write(b"secret")
    program.end()
    start.set_result(scene.program(1001).process)
    client.send("write", pid=1000, data="later")
    assert not program.process.viewers
    assert program.clock.waiting == 0
    await asyncio.sleep(0)
    client.transport.abort()
    assert await client.until_closed() == 1008
    assert client.types() == ["connected", "attached", "close frame"]
    assert program.typed() == b""
    assert list(scene.files.iterdir()) == []


async def test_a_grant_that_ends_while_answers_wait_for_their_reader(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "MAX_ANSWER_BYTES", 10_000)
    client = await scene.client()
    client.transport.stall()
    while client.transport.reading:
        client.send("ping", id="x" * 1000)
    sent = len(client.of("pong"))
    client.connection.end(1008)
    client.transport.take()
    await asyncio.sleep(0)
    assert client.types()[-1] == "close frame"
    assert len(client.of("pong")) == sent


async def test_a_defect_ends_the_connection_and_no_other(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At once, in a request that is awaited, and in one that is answered later, which was never noticed:
    its answer, and all behind it, did not come."""
    scene.program()
    other = await scene.client()

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    async def fail_later(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(scene.terminals, "write", fail)
    monkeypatch.setattr(scene.starting, "spawn", fail_later)
    monkeypatch.setattr(scene.lifetimes, "ended", fail_later)
    for request in (
        {"type": "write", "pid": 1000, "data": "x"},
        {"type": "spawn"},
        {"type": "kill", "pid": 1000, "signal": "TERM"},
    ):
        client = await scene.client()
        caplog.clear()
        client.raw(TEXT, json.dumps(request).encode())
        client.send("ping", id="behind it")
        await client.until("close frame")
        client.send("ping", id="after it")
        assert client.close_code == rfc.INTERNAL_ERROR
        assert client.of("pong") == []
        assert [record.message.split(" ")[0] for record in caplog.records] == ["defect"]
    await other.answered()


async def test_what_fails_when_it_is_answered_later_is_answered_with_its_error(scene: Scene) -> None:
    client = await scene.client()

    async def fail() -> m.Message:
        raise NotFound("there is none")

    client.connection.later(fail(), m.Ping(id=msgspec.Raw(b"5")))
    client.send("ping", id=6)
    await client.until("pong", id=6)
    assert [(message["type"], message["id"]) for message in client.seen()[1:]] == [("error", 5), ("pong", 6)]


async def test_binary_frames_need_a_connection_that_negotiated_them(scene: Scene) -> None:
    program, client = scene.program(), await scene.client(newer=False)
    client.type(1000, b"x")
    assert (await client.until("error"))["code"] == "not-negotiated"
    assert program.typed() == b""


async def test_binary_frames_need_what_a_write_needs(scene: Scene) -> None:
    program, client = scene.program(), await scene.client(grant=VIEWS)
    client.type(1000, b"x")
    assert (await client.until("error"))["code"] == "forbidden"
    assert program.typed() == b""


async def test_a_process_that_is_not_the_clients_to_see_is_not_there(scene: Scene) -> None:
    program = scene.program()
    client = await scene.client(grant=replace(EVERYTHING, processes=frozenset({5})))
    for request in ("attach", "closeStdin", "credentials", "stats", "resize", "kill", "write", "detach"):
        fields = {"cols": 5, "rows": 5, "signal": "TERM", "data": "x"}
        client.send(request, pid=1000, id=request, **fields)
    client.type(1000, b"x")
    client.type(1000, b"x", 0)
    await client.answered()
    got = {
        message["id"]: message.get("code", message["type"]) for message in client.seen() if "id" in message
    }
    unknown = dict.fromkeys(("attach", "closeStdin", "credentials", "stats"), "unknown-process")
    assert got == {**unknown, "kill": "killed", "detach": "detached"}
    assert program.typed() == b""
    assert scene.link.called == []
