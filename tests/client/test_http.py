"""Requests over HTTP: the answer's JSON, or the server's own error, or why there is no answer."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from mhnos_runtime.client.discovery import Target
from mhnos_runtime.client.errors import ConnectFailed, RequestFailed, Unauthorized
from mhnos_runtime.client.http import ask

PROBLEM = {"error": "No such token", "code": "not-found", "hint": "list shows them"}


async def echo(request: web.Request) -> web.Response:
    body = await request.json() if request.can_read_body else None
    token = request.headers.get("Authorization")
    return web.json_response(
        {"method": request.method, "path": request.raw_path, "body": body, "token": token}
    )


def answer(status: int, body: object) -> web.Response:
    return web.json_response(body, status=status)


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    async def fixed(request: web.Request) -> web.Response:
        match request.path.removeprefix("/base"):
            case "/none":
                return web.Response(status=204)
            case "/problem":
                return answer(404, PROBLEM)
            case "/list":
                return answer(500, ["no", "object"])
            case "/moved":
                return web.Response(status=302, headers={"Location": "/base/none"})
            case "/token":
                return answer(401, {"error": "The token is wrong"})
            case "/busy":
                return answer(503, {"error": "later", "code": "unavailable"})
            case "/broken":
                return web.Response(body=b"{", content_type="application/json")
        return await echo(request)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", fixed)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield Target(f"http://127.0.0.1:{runner.addresses[0][1]}/base/", "secret", "test")
    await runner.cleanup()


async def test_it_asks_below_the_runtimes_address_with_the_token(target: Target) -> None:
    found = await ask(target, "POST", "/v1/tokens/a%2Fb", {"name": "x"})
    assert found == {
        "method": "POST",
        "path": "/base/v1/tokens/a%2Fb",
        "body": {"name": "x"},
        "token": "Bearer secret",
    }
    bare = await ask(Target(target.url, None, "test"), "GET", "/v1/tokens")
    assert (bare["token"], bare["body"]) == (None, None)


async def test_an_answer_without_a_body_is_none(target: Target) -> None:
    assert await ask(target, "DELETE", "/none") is None


async def test_the_servers_error_comes_through(target: Target) -> None:
    with pytest.raises(RequestFailed, match="No such token") as caught:
        await ask(target, "GET", "/problem")
    assert (caught.value.code, caught.value.hint, caught.value.retry) == (
        "not-found",
        "list shows them",
        False,
    )


@pytest.mark.parametrize(("path", "text"), [("/list", "answered HTTP 500"), ("/moved", "answered HTTP 302")])
async def test_what_is_no_problem_body_is_told_by_its_status(target: Target, path: str, text: str) -> None:
    with pytest.raises(RequestFailed, match=text) as caught:
        await ask(target, "GET", path)
    assert caught.value.code == "internal"


async def test_a_refusal_that_passes_may_be_tried_again(target: Target) -> None:
    with pytest.raises(RequestFailed, match="later") as caught:
        await ask(target, "GET", "/busy")
    assert caught.value.retry


async def test_a_refused_token_has_a_type_of_its_own(target: Target) -> None:
    with pytest.raises(Unauthorized, match="refused the token"):
        await ask(target, "GET", "/token")


async def test_no_answer_and_one_that_is_no_json_are_told(target: Target) -> None:
    with pytest.raises(ConnectFailed, match="cannot ask"):
        await ask(target, "GET", "/broken")
    with pytest.raises(ConnectFailed, match="cannot ask"):
        await ask(Target("http://127.0.0.1:1", None, "test"), "GET", "/")
