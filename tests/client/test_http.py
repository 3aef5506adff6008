"""Requests to routes, against real servers that answer well, badly, late, or elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from mhnos_runtime.client.discovery import Target
from mhnos_runtime.client.errors import ConnectFailed, RequestFailed, Unauthorized
from mhnos_runtime.client.http import ask
from tests.client.peer import Peer, Scripted

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
TOKEN = "t" * 43


@asynccontextmanager
async def answering(handler: Handler) -> AsyncIterator[Target]:
    server = web.Server(handler)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield Target(f"http://127.0.0.1:{runner.addresses[0][1]}", TOKEN, "a test")
    finally:
        await runner.cleanup()


def with_response(make: Callable[[], web.StreamResponse]) -> Handler:
    async def handler(_request: web.BaseRequest) -> web.StreamResponse:
        return make()

    return handler


def problem(status: int, body: str, content_type: str = "application/json") -> Handler:
    return with_response(lambda: web.Response(status=status, text=body, content_type=content_type))


@pytest.mark.parametrize("end", ["", "/", "/user/ann", "/user/ann/"])
async def test_what_is_sent_and_what_comes_back(end: str) -> None:
    seen: list[tuple[str, str, str, str]] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        headers = request.headers
        seen.append((request.method, request.path, headers["Authorization"], await request.text()))
        return web.json_response({"a": [1, "é"]})

    async with answering(handler) as target:
        below = Target(target.url + end, TOKEN, "a test")
        assert await asyncio.to_thread(ask, below, "POST", "/v1/x", {"b": None}) == {"a": [1, "é"]}
    assert seen == [("POST", f"{end.rstrip('/')}/v1/x", f"Bearer {TOKEN}", '{"b": null}')]


async def test_without_a_token_none_is_sent() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        assert "Authorization" not in request.headers
        assert await request.read() == b""
        return web.Response(status=204)

    async with answering(handler) as target:
        assert await asyncio.to_thread(ask, Target(target.url, None, "a test"), "DELETE", "/v1/x") is None


async def test_what_is_encoded_stays_so() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response(
            request.raw_path if isinstance(request, web.Request) else request._message.path
        )

    async with answering(handler) as target:
        assert await asyncio.to_thread(ask, target, "GET", "/v1/tokens/a%20b%2Fc") == "/v1/tokens/a%20b%2Fc"


async def test_an_error_of_the_server_keeps_its_code_and_hint() -> None:
    async with answering(problem(409, '{"error":"taken","code":"name-taken","hint":"choose"}')) as target:
        with pytest.raises(RequestFailed) as caught:
            await asyncio.to_thread(ask, target, "POST", "/v1/x")
    assert (caught.value.message, caught.value.code, caught.value.hint) == ("taken", "name-taken", "choose")


@pytest.mark.parametrize(("status", "retry"), [(429, True), (503, True), (409, False), (500, False)])
async def test_a_refusal_that_passes_may_be_tried_again(status: int, retry: bool) -> None:
    async with answering(problem(status, '{"error":"later","code":"unavailable"}')) as target:
        with pytest.raises(RequestFailed, match="later") as caught:
            await asyncio.to_thread(ask, target, "GET", "/v1/x")
    assert caught.value.retry is retry


async def test_a_wrong_token_is_told_as_such() -> None:
    async with answering(problem(401, '{"error":"The token is wrong","code":"unauthorized"}')) as target:
        with pytest.raises(Unauthorized, match="refused the token"):
            await asyncio.to_thread(ask, target, "GET", "/v1/x")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("", "text/plain"),
        ("<h1>Bad gateway</h1>", "text/html"),
        ("[1]", "application/json"),
        ("{}", "application/json"),
    ],
)
async def test_an_error_of_something_in_between(body: str, content_type: str) -> None:
    async with answering(problem(502, body, content_type)) as target:
        with pytest.raises(RequestFailed, match="answered HTTP 502") as caught:
            await asyncio.to_thread(ask, target, "GET", "/v1/x")
    assert caught.value.code == "internal"


@pytest.mark.parametrize("body", ["{", "\udcff", "[" * 100_000])
async def test_json_that_is_none(body: str) -> None:
    data = body.encode(errors="surrogateescape")
    async with answering(
        with_response(lambda: web.Response(body=data, content_type="application/json"))
    ) as target:
        with pytest.raises(ConnectFailed, match="cannot ask"):
            await asyncio.to_thread(ask, target, "GET", "/v1/x")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirection_takes_the_token_nowhere(status: int) -> None:
    asked: list[str] = []

    async def elsewhere(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.headers.get("Authorization", ""))
        return web.json_response({})

    async with answering(elsewhere) as other:
        moved = with_response(lambda: web.Response(status=status, headers={"Location": other.url}))
        async with answering(moved) as target:
            with pytest.raises(RequestFailed, match=f"answered HTTP {status}"):
                await asyncio.to_thread(ask, target, "GET", "/v1/x")
    assert asked == []


async def test_one_that_does_not_answer_is_given_up() -> None:
    async def never(_request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async with answering(never) as target:
        with pytest.raises(ConnectFailed, match="cannot ask"):
            await asyncio.to_thread(ask, target, "GET", "/v1/x", timeout_s=0.1)


async def test_nobody_there_and_no_http() -> None:
    async with answering(problem(200, "{}")) as target:
        pass
    with pytest.raises(ConnectFailed, match="cannot ask"):
        await asyncio.to_thread(ask, target, "GET", "/v1/x")

    async def noise(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-x\r\n")
        writer.close()

    server = await asyncio.start_server(noise, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConnectFailed, match="cannot ask"):
            await asyncio.to_thread(ask, Target(f"http://127.0.0.1:{port}", TOKEN, "a test"), "GET", "/v1/x")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n[1]", [1]),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n[1]", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nX: " + bytes(1 << 17), None),
        (b"", None),
    ],
)
def test_an_answer_that_ends_with_the_connection_and_ones_that_do_not_end(
    answer: bytes, expected: object
) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(answer)

    with Scripted(script) as server:
        there = Target(server.url, TOKEN, "a test")
        if expected is not None:
            assert ask(there, "GET", "/v1/x") == expected
            return
        with pytest.raises(ConnectFailed, match="cannot ask"):
            ask(there, "GET", "/v1/x")


@pytest.mark.parametrize("token", ["a\r\nX-Evil: 1", "a\nb"])
async def test_a_token_of_two_lines_is_no_header(token: str) -> None:
    async with answering(problem(200, "{}")) as target:
        with pytest.raises(ConnectFailed) as caught:
            await asyncio.to_thread(ask, Target(target.url, token, "a test"), "GET", "/v1/x")
    assert "Evil" not in caught.value.message
