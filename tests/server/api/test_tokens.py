"""The routes of stored grants over real sockets, with a store on a real file."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yarl

from mhnos_runtime.errors import Unavailable
from mhnos_runtime.server.api.tokens import TokenRoutes
from mhnos_runtime.server.auth.grantfile import MAX_GRANTS, GrantFile, Stored
from mhnos_runtime.server.auth.grants import EVERYTHING, Grant, Scope
from mhnos_runtime.server.auth.live import Live
from mhnos_runtime.server.auth.stored import MAX_LIFETIME_MS, StoredGrants
from tests.server.http.site import Some, serve

MANAGER = Grant("token:manager", frozenset(Scope))


class Api:
    def __init__(self, url: str, stored: StoredGrants, session: aiohttp.ClientSession) -> None:
        self.stored = stored
        self.url = url
        self.session = session

    async def ask(
        self, method: str, path: str = "", token: str = "operator", **options: Any
    ) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}"}
        url = f"{self.url}/v1/tokens{path}"
        async with self.session.request(method, url, headers=headers, **options) as response:
            if response.status < 300:
                kept = "no-store" if response.status != 204 else None
                assert response.headers.get("Cache-Control") == kept
            return response.status, json.loads(await response.text() or "null")

    async def create(self, name: str = "ann", **fields: Any) -> Any:
        status, made = await self.ask("POST", json={"name": name, "scopes": ["view"], **fields})
        assert status == 201, made
        return made


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    tmp_path.chmod(0o700)
    loop = asyncio.get_running_loop()
    live = Live(loop)
    stored = StoredGrants(GrantFile(tmp_path), live, loop, "one")
    async with (
        serve(TokenRoutes(stored).rows(), Some(EVERYTHING, MANAGER), live) as address,
        aiohttp.ClientSession() as session,
    ):
        yield Api("http://{}:{}".format(*address), stored, session)
    await stored.close()


async def test_what_is_made_is_listed_without_its_secret(api: Api) -> None:
    made = await api.create(processes=[1000], paths=["/src"], ports=[8080], readOnly=True, lifetimeMs=60_000)
    assert made["expires"] == made["created"] + 60_000
    found = api.stored.find(made.pop("token"))
    assert found is not None
    status, answer = await api.ask("GET")
    assert status == 200
    (row,) = answer["tokens"]
    assert row.pop("lastUsed") >= made.pop("created") == row.pop("created")
    assert made.pop("lastUsed") is None
    assert row == made
    expected = {"name", "scopes", "processes", "paths", "ports", "readOnly", "expires"}
    assert row.keys() == expected


async def test_what_is_revoked_is_gone(api: Api) -> None:
    made = await api.create("A b.c_@+-9")
    assert await api.ask("DELETE", "/a%20B.c_%40%2B-9") == (204, None)
    assert api.stored.find(made["token"]) is None
    status, answer = await api.ask("DELETE", "/a%20B.c_%40%2B-9")
    assert (status, answer["code"]) == (404, "not-found")


@pytest.mark.parametrize("name", ["", "a/b", "%2e%2e", "%FF", "%00", "%0d%0aX:%201", "x" * 4000])
async def test_names_that_are_none(api: Api, name: str) -> None:
    path = yarl.URL(f"{api.url}/v1/tokens/{name}", encoded=True)
    headers = {"Authorization": "Bearer operator"}
    async with api.session.request("DELETE", path, headers=headers) as response:
        assert response.status == 404
        assert (await response.json())["code"] == "not-found"


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("POST", ""), ("DELETE", "/ann")])
async def test_only_the_operator_may(api: Api, method: str, path: str) -> None:
    await api.create()
    status, answer = await api.ask(method, path, "manager", json={"name": "x", "scopes": ["control"]})
    assert (status, answer["code"]) == (403, "forbidden")
    assert (await api.ask(method, path, "wrong"))[0] == 401
    assert [each.name for each in api.stored.in_force()] == ["ann"]


@pytest.mark.parametrize(
    "fields",
    [
        {"lifetimeMs": MAX_LIFETIME_MS + 1},
        {"lifetimeMs": -1},
        {"lifetimeMs": 1.5},
        {"lifetimeMs": True},
        {"expires": 1},
        {"last_used": 1},
        {"server_id": "x"},
        {"created": 0},
        {"scopes": "view"},
        {"scopes": ["view"] * 6},
        {"processes": list(range(513))},
        {"processes": [2**32]},
        {"ports": [0]},
        {"ports": [65_536]},
        {"paths": [""]},
        {"name": None},
    ],
    ids=str,
)
async def test_what_cannot_be_asked_for(api: Api, fields: dict[str, Any]) -> None:
    status, answer = await api.ask("POST", json={"name": "ann", "scopes": ["view"], **fields})
    assert (status, answer["code"]) == (400, "invalid-argument")
    assert api.stored.in_force() == []


@pytest.mark.parametrize("body", [b"", b"\x00", b"[" * 50_000, b'{"name":"ann"', b"1e999"])
async def test_a_body_that_is_none(api: Api, body: bytes) -> None:
    status, answer = await api.ask("POST", data=body)
    assert (status, answer["code"]) == (400, "invalid-argument")


async def test_a_full_disk_is_an_answer_that_says_so(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.create()

    def full(*_: object) -> None:
        raise Unavailable("The grants could not be written: No space left on device", hint="make room")

    monkeypatch.setattr(GrantFile, "save", full)
    status, answer = await api.ask("POST", json={"name": "bob", "scopes": ["view"]})
    assert (status, answer["code"], answer["hint"]) == (503, "unavailable", "make room")
    assert "No space left" in answer["error"]
    status, answer = await api.ask("DELETE", "/ann")
    assert (status, answer["code"]) == (503, "unavailable")
    assert "is revoked" in answer["error"]
    assert api.stored.in_force() == []


async def test_a_name_twice(api: Api) -> None:
    await api.create()
    status, answer = await api.ask("POST", json={"name": "ANN", "scopes": ["view"]})
    assert (status, answer["code"]) == (409, "name-taken")


async def test_a_thousand(api: Api) -> None:
    """As many as there may be are listed in one answer; one more is refused."""
    for number in range(MAX_GRANTS):
        api.stored._put(Stored(name=f"a{number}", scopes=[Scope.VIEW], digest=f"{number:064x}", created=1))
    status, answer = await api.ask("GET")
    assert (status, len(answer["tokens"])) == (200, MAX_GRANTS)
    status, answer = await api.ask("POST", json={"name": "more", "scopes": ["view"]})
    assert (status, answer["code"]) == (503, "limit-reached")
