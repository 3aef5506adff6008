"""When which byte was captured: read from a replay in text frames, on a connection of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from mhnos_runtime.client.errors import ConnectFailed, RequestFailed, Unauthorized
from mhnos_runtime.client.timeline import read_timeline
from tests.client.fake import Cut, FakeProcess, FakeServer, Json, Peer

PID = 1000


@pytest.fixture
async def fake() -> AsyncIterator[FakeServer]:
    async with FakeServer() as made:
        made.processes[PID] = FakeProcess()
        yield made


async def replay(peer: Peer, request: Json) -> bool:
    assert request == {"type": "attach", "pid": PID}
    stamped = [("stdout", 5, 7, 1000), ("stderr", 7, 8, 1001), ("stdout", 8, 9, 3000)]
    await peer.send(type="replay", pid=PID, to=9, **{"from": 5})
    await peer.send(type="fromTheFuture")
    for stream, offset, next_, time_ms in stamped:
        await peer.send(type=stream, pid=PID, data="x", offset=offset, next=next_, timestamp=time_ms)
    await peer.send(type="stdout", pid=PID, data="live", offset=9, next=13)
    await peer.send(type="attached", pid=PID, status="running", next=9, **{"from": 5})
    await peer.send(type="stdout", pid=PID, data="later", offset=13, next=18, timestamp=4000)
    return True


async def test_each_piece_of_the_replay_has_its_time(fake: FakeServer) -> None:
    fake.handlers["attach"] = replay
    found = await read_timeline(fake.url, None, PID)
    assert found == [(5, 1000), (7, 1001), (8, 3000)]


async def test_a_process_that_is_not_there_is_the_servers_error(fake: FakeServer) -> None:
    async def unknown(peer: Peer, _request: Json) -> bool:
        await peer.send(type="error", error="Process 1000 not found", code="unknown-process", pid=PID)
        return True

    fake.handlers["attach"] = unknown
    with pytest.raises(RequestFailed) as caught:
        await read_timeline(fake.url, None, PID)
    assert caught.value.code == "unknown-process"


async def test_a_refused_token_and_a_connection_that_ends_are_told(fake: FakeServer) -> None:
    async def cut(peer: Peer, _request: Json) -> bool:
        peer.cut()
        raise Cut

    fake.handlers["attach"] = cut
    with pytest.raises(ConnectFailed, match="closed the connection"):
        await read_timeline(fake.url, None, PID)
    fake.token = "right"
    with pytest.raises(Unauthorized):
        await read_timeline(fake.url, "wrong", PID)
