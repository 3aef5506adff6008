"""What a browser is told for its pages, over a real socket: raw requests as browsers send them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from aiohttp import web

from mhnos_runtime.server.auth.grants import EVERYTHING, Access, Grant, Scope
from mhnos_runtime.server.auth.live import Live
from mhnos_runtime.server.auth.refusals import REFUSALS
from mhnos_runtime.server.http.call import Call
from mhnos_runtime.server.http.routes import Row
from tests.server.auth.gates import Setting
from tests.server.http.site import Some, serve

PATIENCE = 20.0
DESK, EVIL = "https://desk.example", "https://evil.example"
VIEW = Grant("token:view", frozenset({Scope.VIEW}))
PREFLIGHT = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: str

    @property
    def reader(self) -> str | None:
        """Whose pages may read it."""
        return self.headers.get("access-control-allow-origin")

    @property
    def cors(self) -> set[str]:
        return {name for name in self.headers if name.startswith("access-control-")}

    @property
    def code(self) -> str:
        code: str = json.loads(self.body)["code"]
        return code


class Site:
    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.own = "http://{}:{}".format(*address)

    async def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """headers: with _ for -; token: a short form of one."""
        reader, writer = await asyncio.open_connection(*self.address)
        sent = {"Host": self.own.removeprefix("http://"), "Connection": "close"}
        if (token := headers.pop("token", "")) != "":
            sent["Authorization"] = f"Bearer {token}"
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{name}: {value}" for name, value in sent.items()]
        writer.write("\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode())
        async with asyncio.timeout(PATIENCE):
            head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
        writer.close()
        first, *rest = head.split("\r\n")
        pairs = [line.partition(": ") for line in rest]
        return Answer(int(first.split()[1]), {name.lower(): value for name, _, value in pairs}, body)

    async def preflight(self, path: str, origin: str, **more: str) -> Answer:
        asked = {name.replace("-", "_"): value for name, value in PREFLIGHT.items()}
        return await self.ask(path, "OPTIONS", Origin=origin, **asked, **more)


async def _fine(_call: Call) -> web.Response:
    return web.Response(text="fine")


async def _defect(_call: Call) -> web.Response:
    raise RuntimeError("a secret of the server")


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    rows = (
        Row("GET", "/open", Access.OPEN, _fine),
        Row("GET", "/granted", Access.GRANTED, _fine),
        Row("GET", "/files", Scope.FILES, _fine),
        Row("GET", "/defect", Access.GRANTED, _defect),
    )
    live = Live(asyncio.get_running_loop())
    async with serve(rows, Some(EVERYTHING, VIEW), live, Setting(allow_origin=(DESK, "null"))) as address:
        yield Site(address)


@pytest.mark.parametrize(
    ("path", "token", "status", "code"),
    [
        ("/open", "", 200, ""),
        ("/granted", "operator", 200, ""),
        ("/granted", "", 401, "unauthorized"),
        ("/granted", "wrong", 401, "unauthorized"),
        ("/nothing", "", 401, "unauthorized"),
        ("/nothing", "operator", 404, "not-found"),
        ("/files", "view", 403, "forbidden"),
        ("/defect", "operator", 500, "internal"),
    ],
)
async def test_a_page_that_is_allowed_reads_every_answer_and_no_other_does(
    site: Site, path: str, token: str, status: int, code: str
) -> None:
    """All that a page saw of a wrong token was a WebSocket that ended with 1006."""
    for origin in (DESK, "null", site.own):
        answer = await site.ask(path, token=token, Origin=origin)
        assert (answer.status, answer.reader) == (status, origin)
        assert (answer.code if code else "") == code
        assert answer.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in answer.headers
    plain = await site.ask(path, token=token)
    assert (plain.status, plain.cors) == (status, set())
    refused = await site.ask(path, token=token, Origin=EVIL)
    assert (refused.status, refused.code, refused.cors) == (403, "forbidden-origin", set())
    # A browser makes an error of what a page asks for without CORS, and runs or shows none of it.
    for answer in (plain, refused):
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["vary"] == "Origin"


async def test_other_methods_are_readable_too(site: Site) -> None:
    answer = await site.ask("/open", "POST", Origin=DESK)
    assert (answer.status, answer.reader) == (401, DESK)
    answer = await site.ask("/open", "DELETE", Origin=DESK, token="operator")
    assert (answer.status, answer.reader, answer.headers["allow"]) == (405, DESK, "GET, HEAD")
    head = await site.ask("/open", "HEAD", Origin=DESK)
    assert (head.status, head.reader, head.body) == (200, DESK, "")


@pytest.mark.parametrize("path", ["/open", "/granted", "/nothing", "/"])
async def test_a_preflight_of_an_allowed_page_needs_no_token_and_tells_no_path(site: Site, path: str) -> None:
    answer = await site.preflight(path, DESK)
    assert (answer.status, answer.reader, answer.body) == (204, DESK, "")
    allowed = answer.headers["access-control-allow-headers"].split(", ")
    assert {"Authorization", "Content-Type", "If-Match", "Mhnos-Mode", "Upload-Offset"} <= set(allowed)
    assert answer.headers["access-control-allow-methods"] == "GET, HEAD, POST, PUT, PATCH, DELETE"
    assert "access-control-allow-private-network" not in answer.headers
    refused = await site.preflight(path, EVIL)
    assert (refused.status, refused.cors) == (403, set())


async def test_a_page_of_the_internet_may_ask_for_an_address_of_this_network(site: Site) -> None:
    wish = {"Access_Control_Request_Private_Network": "true"}
    answer = await site.preflight("/open", DESK, **wish)
    assert answer.headers["access-control-allow-private-network"] == "true"
    assert (await site.preflight("/open", EVIL, **wish)).cors == set()


@pytest.mark.parametrize(
    "headers", [{"Origin": DESK}, {"Access_Control_Request_Method": "GET"}, {"Origin": EVIL}, {}]
)
async def test_what_is_no_preflight_is_refused_as_ever(site: Site, headers: dict[str, str]) -> None:
    expected = 403 if headers.get("Origin") == EVIL else 401
    assert (await site.ask("/open", "OPTIONS", **headers)).status == expected


async def test_a_host_that_is_wrong_is_told_to_allowed_pages_only(site: Site) -> None:
    """Rebinding: what leads here by a name of the attacker's reads nothing, whatever Origin it has."""
    answer = await site.ask("/open", Host="evil.example", Origin=DESK)
    assert (answer.status, answer.code, answer.reader) == (421, "forbidden-host", DESK)
    page = "http://evil.example"
    for answer in (
        await site.ask("/open", Host="evil.example", Origin=page),
        await site.preflight("/open", page, Host="evil.example"),
    ):
        assert (answer.status, answer.cors) == (421, set())


async def test_who_asks_too_often_learns_when_to_come_again(site: Site) -> None:
    for _ in range(REFUSALS):
        await site.ask("/granted", Origin=DESK, token="wrong")
    answer = await site.ask("/granted", Origin=DESK, token="wrong")
    assert (answer.status, answer.reader) == (429, DESK)
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {"Retry-After", "ETag", "Mhnos-Mtime", "Location", "Upload-Offset"} <= set(exposed)
    assert int(answer.headers["retry-after"]) > 0


async def test_a_line_of_the_log_says_what_was_refused(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """An operator had to guess which page it was."""
    await site.ask("/open", Origin=EVIL)
    (record,) = [each for each in caplog.records if each.msg == "request refused"]
    assert f"'origin': '{EVIL}'" in str(record.__dict__)


async def test_a_long_header_makes_no_long_line(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    await site.ask("/open", Host="x" * 5000)
    (record,) = [each for each in caplog.records if each.msg == "request refused"]
    assert len(str(record.__dict__)) < 1500
