"""The upgrade to a WebSocket, on a real socket: what is refused, what the server says first, and its end."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
import pytest_asyncio
from aiohttp import web
from multidict import CIMultiDict

from mhnos_runtime.config import Settings
from mhnos_runtime.errors import MhnosError
from mhnos_runtime.server.auth.grants import EVERYTHING, Access, Grant, Scope
from mhnos_runtime.server.auth.live import Live
from mhnos_runtime.server.connections import sockets as module
from mhnos_runtime.server.connections.sockets import Sockets
from mhnos_runtime.server.http.call import Call
from mhnos_runtime.server.http.problems import problem
from mhnos_runtime.server.processes import room
from mhnos_runtime.wire import websocket as rfc
from tests.server.connections.scene import Scene, turns_until
from tests.server.raw import CLOSE, NEWER, TEXT, Raw, frame, upgrade


class Door:
    """Serves one row on a real port, to whoever comes. stays: visitors that were told to."""

    def __init__(self, scene: Scene, settings: Settings) -> None:
        self.live = Live(asyncio.get_running_loop())
        self.sockets = Sockets(settings, "server id", scene.services, self.live)
        self.welcome, _, self.connect = self.sockets.rows()
        self.grant = EVERYTHING
        self.handler = self.connect.handler
        self.stays = 0
        self._http = web.Server(cast(Any, self._handle), access_log=None)

    async def open(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(self._http, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._server.close()
        await self.sockets.close()
        await self._http.shutdown(1)

    def stay(self) -> None:
        self.stays += 1

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            answer: web.StreamResponse = await self.handler(Call(request, {}, self.grant, cast(Any, self)))
        except MhnosError as error:
            return problem(error)
        return answer

    @asynccontextmanager
    async def raw(self, behind: bytes = b"", **changes: str | None) -> AsyncIterator[tuple[bytes, Raw]]:
        """The head of the answer, and the connection. behind: sent in one piece with the handshake."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            server: Any = SimpleNamespace(url=f"http://127.0.0.1:{self._port}", token="t")
            writer.write(upgrade(server, **{"Sec_WebSocket_Protocol": NEWER, **changes}) + behind)
            yield await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20), Raw(reader, writer)
        finally:
            writer.transport.abort()


@pytest_asyncio.fixture
async def door(scene: Scene, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Door]:
    # How many descriptors there are is this machine's matter.
    monkeypatch.setattr(room, "for_client", lambda: True)
    made = Door(scene, settings)
    await made.open()
    yield made
    await made.close()


# The upgrade


async def test_the_first_message_says_what_there_is_for_whom(door: Door) -> None:
    door.grant = Grant("somebody", frozenset({Scope.CONTROL}))
    async with door.raw() as (head, client):
        assert b"101 Switching Protocols" in head
        hello = await client.message()
    assert (hello["type"], hello["serverId"], hello["scopes"]) == (
        "connected",
        "server id",
        ["control", "view"],
    )
    assert hello["limits"]["maxProcesses"] == 50
    assert door.stays == 1


async def test_what_came_with_the_handshake_is_not_lost(door: Door) -> None:
    ping = b'{"type":"ping","id":"works"}'
    async with door.raw(frame(TEXT, ping) + frame(TEXT, ping)) as (_head, client):
        assert [(await client.message())["type"] for _ in range(3)] == ["connected", "pong", "pong"]


def test_where_there_is_no_tcp_there_is_no_queue_to_keep_short() -> None:
    """As with a transport that has no socket, or one of another family."""
    for found in (None, SimpleNamespace(family=socket.AF_UNIX)):
        module._keep_queue_short(cast(Any, SimpleNamespace(get_extra_info=lambda _name, found=found: found)))


@pytest.mark.parametrize(
    ("protocols", "newer"),
    [(None, False), ("chat", False), ("chat, mhnos.v1.1", True), ("mhnos.v1.1x", False)],
    ids=str,
)
async def test_binary_frames_are_for_who_offers_them(door: Door, protocols: str | None, newer: bool) -> None:
    async with door.raw(Sec_WebSocket_Protocol=protocols) as (head, client):
        assert (b"Sec-WebSocket-Protocol: mhnos.v1.1\r\n" in head) is newer
        await client.message()
        await client.send(frame(2, b"too short"))
        assert ((await client.message())["code"] == "not-negotiated") is not newer


async def test_what_is_no_handshake_is_answered_by_http(door: Door) -> None:
    async with door.raw(Sec_WebSocket_Version="7") as (head, _client):
        assert b" 426 " in head
        assert b"Sec-WebSocket-Version: 13\r\n" in head
    assert door.stays == 0


async def test_no_client_is_let_in_that_there_are_no_descriptors_for(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "for_client", lambda: False)
    async with door.raw() as (head, client):
        assert b" 503 " in head
        assert b"Retry-After: 5\r\n" in head
        answer = await client.reader.readuntil(b"}")
    assert json.loads(answer)["code"] == "too-many-connections"
    assert door.stays == 0


async def test_who_asks_without_an_upgrade_is_told_what_this_is(door: Door) -> None:
    door.handler = door.welcome.handler
    async with door.raw(Upgrade=None) as (head, _client):
        assert b" 426 " in head
        assert b"Upgrade: websocket\r\n" in head


async def test_a_client_that_is_gone_by_then_is_none(door: Door) -> None:
    """Its transport may be closing, or not be there any more."""
    async with door.raw() as (_head, client):
        await client.message()
    for transport in (None, SimpleNamespace(is_closing=lambda: True)):
        request = SimpleNamespace(
            method="GET", version=(1, 1), headers=_headers(), transport=transport, remote=""
        )
        answer = await door.connect.handler(Call(cast(Any, request), {}, EVERYTHING, cast(Any, door)))
        with pytest.raises(ConnectionResetError):
            await answer.prepare(request)
    assert door.stays == 1


def _headers() -> Any:
    server: Any = SimpleNamespace(url="http://x", token="t")
    lines = upgrade(server).decode().split("\r\n")[1:]
    return CIMultiDict([(name, value) for name, _, value in (line.partition(": ") for line in lines) if name])


def test_strangers_have_no_row() -> None:
    nobody: Any = None
    rows = Sockets(nobody, "", nobody, nobody).rows()
    assert {row.needs for row in rows} == {Access.GRANTED}
    assert [row.upgrade for row in rows] == [False, False, True]


# The end


async def test_a_grant_that_is_revoked_takes_its_connections_along_and_no_others(door: Door) -> None:
    async with door.raw() as (_, other):
        await other.message()
        door.grant = Grant("somebody", frozenset(Scope))
        async with door.raw() as (_, client):
            await client.message()
            door.live.end("somebody")
            assert await client.closed() == 1008
        await other.works()


async def test_a_grant_that_has_expired_by_then_shows_nothing(door: Door) -> None:
    """It did when the gate looked at it."""
    door.grant = Grant("somebody", frozenset(Scope), expires=0)
    async with door.raw(frame(TEXT, b'{"type":"list"}')) as (_, client):
        got = await client.frame()
        assert (got.opcode, got.code) == (CLOSE, 1008)


async def test_a_server_that_goes_tells_its_clients(door: Door) -> None:
    async with door.raw() as (_, client):
        await client.message()
        closing = asyncio.create_task(door.sockets.close())
        assert await client.closed() == rfc.GOING_AWAY
        await closing
    await door.sockets.close()


async def test_a_server_that_goes_does_not_wait_for_who_does_not_answer(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GOODBYE_SECONDS", 0.01)
    async with door.raw() as (_, client):
        await client.message()
        await door.sockets.close()
        assert (await client.frame()).code == rfc.GOING_AWAY
        with pytest.raises(asyncio.IncompleteReadError):
            await client.frame()


async def test_a_defect_is_logged_and_ends_the_connection_without_an_answer_of_http(
    door: Door, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_grant: Grant) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(door.sockets, "_hello", fail)
    async with door.raw() as (head, client):
        assert b"101" in head
        assert await client.reader.read() == b""
    assert "defect in a request" in caplog.text


async def test_coming_and_going_are_logged_with_a_number(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with door.raw() as (_, client):
        await client.message()
        await client.send(frame(CLOSE, b"\x03\xe9"))
        assert await client.closed() == 1001
    await turns_until(lambda: "client left" in caplog.text)
    own = [record for record in caplog.records if record.msg.startswith("client ")]
    assert {record.levelname for record in own} == {"DEBUG"}
    came, left = (record.__dict__["mhnos_fields"] for record in own)
    assert (came["connection"], came["newer"], came["principal"]) == (1, True, EVERYTHING.principal)
    assert left == {"connection": 1, "code": 1001}
