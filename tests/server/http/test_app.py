"""The shell of HTTP with rows of its own: real sockets, a door, a gate, and what handlers may do wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, BadStatusLine

from mhnos_runtime.errors import InvalidRequest, NotFound
from mhnos_runtime.observe import logs
from mhnos_runtime.observe.limit import LimitedLog, Limiter
from mhnos_runtime.server.auth.grants import EVERYTHING, Access, Grant, Need, Scope
from mhnos_runtime.server.auth.live import Live
from mhnos_runtime.server.http.app import BadRequests
from mhnos_runtime.server.http.call import Call
from mhnos_runtime.server.http.door import MAX_STRANGERS_OF_AN_ADDRESS
from mhnos_runtime.server.http.routes import Row
from tests.server.http.site import Some, serve

PATIENCE = 20.0
VIEW = Grant("token:view", frozenset({Scope.VIEW}))


class Site:
    """An app on a port. said: what handlers noted."""

    def __init__(self, tokens: Some, live: Live) -> None:
        self.said: list[str] = []
        self.waits = asyncio.Event()
        self.tokens, self.live = tokens, live
        self.address = ("", 0)
        self.connections: list[asyncio.StreamWriter] = []

    def rows(self) -> tuple[Row, ...]:
        table: list[tuple[str, Need, Callable[[Call], web.Response]]] = [
            ("/open", Access.OPEN, lambda call: web.Response(text=call.grant.principal or "stranger")),
            ("/view/{name}", Scope.VIEW, lambda call: web.Response(text=call.params["name"])),
            ("/files", Scope.FILES, lambda _: web.Response()),
            ("/domain-error", Access.GRANTED, raising(NotFound("no such thing", hint="look elsewhere"))),
            ("/defect", Access.GRANTED, raising(RuntimeError("a secret of the server"))),
            ("/gone", Access.GRANTED, raising(ConnectionResetError())),
        ]
        return (
            *(Row("GET", pattern, needs, answering(answer)) for pattern, needs, answer in table),
            Row("GET", "/waits", Access.GRANTED, self._wait),
            Row("POST", "/body", Access.GRANTED, self._body),
        )

    async def _wait(self, _call: Call) -> web.Response:
        self.waits.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.said.append("cancelled")
            raise
        raise AssertionError

    async def _body(self, call: Call) -> web.Response:
        data = await call.request.read()
        if not data:
            raise InvalidRequest("a body was expected")
        return web.Response(text=str(len(data)))

    async def connect(self) -> Peer:
        reader, writer = await asyncio.open_connection(*self.address)
        self.connections.append(writer)
        return Peer(self, reader, writer)

    async def get(self, path: str, token: str = "operator") -> tuple[int, str]:
        return await (await self.connect()).get(path, token)


class Peer:
    """One connection that is kept."""

    def __init__(self, site: Site, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._site, self._reader, self._writer = site, reader, writer

    def send(self, path: str, token: str = "operator", method: str = "GET", body: str = "") -> None:
        lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self._site.address[1]}"]
        lines += [f"Authorization: Bearer {token}"] if token else []
        lines += [f"Content-Length: {len(body)}"] if body else []
        self._writer.write("\r\n".join([*lines, "", body]).encode())

    async def get(
        self, path: str, token: str = "operator", method: str = "GET", body: str = ""
    ) -> tuple[int, str]:
        self.send(path, token, method, body)
        async with asyncio.timeout(PATIENCE):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
            length = next(int(line[15:]) for line in head.split("\r\n") if line[:15] == "Content-Length:")
            return int(head.split()[1]), (await self._reader.readexactly(length)).decode()

    async def end(self) -> bytes:
        """What still comes up to the end of the connection."""
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ConnectionResetError):
                return await self._reader.read()
        return b""

    @property
    def ended(self) -> bool:
        return self._reader.at_eof() or self._reader.exception() is not None


def answering(answer: Callable[[Call], web.Response]) -> Callable[[Call], Awaitable[web.Response]]:
    async def handler(call: Call) -> web.Response:
        return answer(call)

    return handler


def raising(error: Exception) -> Callable[[Call], web.Response]:
    def answer(_call: Call) -> web.Response:
        raise error

    return answer


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    running = Site(Some(EVERYTHING, VIEW), Live(asyncio.get_running_loop()))
    async with serve(running.rows(), running.tokens, running.live) as running.address:
        yield running
        for writer in running.connections:
            writer.transport.abort()


async def test_each_row_needs_what_it_says(site: Site) -> None:
    assert await site.get("/open", "") == (200, "stranger")
    assert await site.get("/open", "wrong") == (200, "stranger")
    assert await site.get("/view/x%20y", "view") == (200, "x y")
    status, text = await site.get("/files", "view")
    assert status == 403
    assert '"files"' in json.loads(text)["error"]
    assert (await site.get("/files"))[0] == 200
    for path in ("/view/x", "/files", "/nothing", "/defect"):
        assert (await site.get(path, ""))[0] == 401


async def test_only_who_is_known_learns_which_paths_there_are(site: Site) -> None:
    assert (await site.get("/nothing", "view"))[0] == 404
    status, text = await (await site.connect()).get("/view/x", "view", "DELETE")
    assert (status, json.loads(text)["code"]) == (405, "method-not-allowed")


async def test_what_goes_wrong_becomes_an_answer_in_one_place(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    peer = await site.connect()
    status, text = await peer.get("/domain-error")
    expected = {"error": "no such thing", "code": "not-found", "hint": "look elsewhere"}
    assert (status, json.loads(text)) == (404, expected)
    assert (await peer.get("/body", method="POST"))[0] == 400
    assert await peer.get("/body", method="POST", body="abc") == (200, "3")
    status, text = await peer.get("/defect")
    answer = json.loads(text)
    assert (status, answer["code"]) == (500, "internal")
    assert "secret" not in text
    (record,) = [each for each in caplog.records if each.msg == "defect in a request"]
    assert answer["id"] in str(record.__dict__)
    assert record.exc_info is not None


async def test_a_client_that_has_gone_is_no_defect(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    peer = await site.connect()
    peer.send("/gone")
    assert await peer.end() == b""
    assert caplog.records == []


async def test_a_revocation_ends_a_request_at_once(site: Site) -> None:
    """The handler went on with what it did for a grant that was there no more."""
    peer, other = await site.connect(), await site.connect()
    peer.send("/waits", "view")
    await asyncio.wait_for(site.waits.wait(), PATIENCE)
    site.waits.clear()
    other.send("/waits", "operator")
    await asyncio.wait_for(site.waits.wait(), PATIENCE)
    site.live.end(VIEW.principal)
    assert await peer.end() == b""
    assert site.said == ["cancelled"]
    assert not other.ended
    assert site.live._entries.keys() == {EVERYTHING.principal}


async def test_an_expiry_ends_a_request(site: Site) -> None:
    site.tokens.grants["short"] = replace(VIEW, principal="token:short", expires=time.time() + 0.05)
    peer = await site.connect()
    peer.send("/waits", "short")
    assert await peer.end() == b""
    # It may have expired before the request came, on a busy machine.
    assert site.said in (["cancelled"], [])


async def test_who_shows_no_right_token_any_more_is_a_stranger_again(site: Site) -> None:
    """Whoever had shown a right token once could hold any number of connections after it was revoked."""
    peers = [await site.connect() for _ in range(2 * MAX_STRANGERS_OF_AN_ADDRESS)]
    for peer in peers:
        assert (await peer.get("/view/x", "view"))[0] == 200
    endings = [asyncio.create_task(peer.end()) for peer in peers]
    del site.tokens.grants["view"]
    for peer, path in zip(peers, ("/view/x", "/open") * MAX_STRANGERS_OF_AN_ADDRESS, strict=True):
        peer.send(path, "view")
    async with asyncio.timeout(PATIENCE):
        while sum(each.done() for each in endings) < MAX_STRANGERS_OF_AN_ADDRESS:
            await asyncio.wait([each for each in endings if not each.done()], return_when="FIRST_COMPLETED")
    assert sum(each.done() for each in endings) == MAX_STRANGERS_OF_AN_ADDRESS
    for each in endings:
        each.cancel()


def test_what_is_no_http_is_a_line_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """For aiohttp it was an error with a traceback, and strangers could fill the log."""
    bad = BadRequests(LimitedLog(logs.get("test"), Limiter(time.monotonic)))

    def record(error: Exception | None, *args: object) -> logging.LogRecord:
        caught = None if error is None else (type(error), error, None)
        return logging.LogRecord("aiohttp.server", logging.ERROR, "", 0, "Error from %s", args, caught)

    assert not bad.filter(record(BadStatusLine("GET\nX-Forged: 1"), "192.0.2.1"))
    assert not bad.filter(record(BadHttpMessage("bad")))
    assert bad.filter(record(RuntimeError("a defect"), "192.0.2.1"))
    assert bad.filter(record(None))
    assert [each.msg for each in caplog.records] == ["bad request"] * 2
    assert "Forged" not in caplog.text
