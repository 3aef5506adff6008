"""The description of the API, as who has a grant may have it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp

from mhnos_runtime.server.api.openapi import OpenApiRoute
from mhnos_runtime.server.auth.grants import Access, Grant, Scope
from mhnos_runtime.server.auth.live import Live
from mhnos_runtime.server.http.routes import About, Row
from tests.server.http.site import Some, serve

VIEW = Grant("token:view", frozenset({Scope.VIEW}))


async def nothing(_call: Any) -> None:
    """Never called."""


async def test_any_grant_may_have_it_and_it_is_in_it_itself() -> None:
    route = OpenApiRoute([Row("GET", "/a", Access.GRANTED, nothing, about=About("A"))], "/")
    async with (
        serve(route.rows(), Some(VIEW), Live(asyncio.get_running_loop())) as address,
        aiohttp.ClientSession() as session,
    ):
        url = "http://{}:{}/v1/openapi.json".format(*address)
        async with session.get(url, headers={"Authorization": "Bearer view"}) as answer:
            assert (answer.status, answer.content_type) == (200, "application/json")
            assert set(json.loads(await answer.text())["paths"]) == {"/a", "/v1/openapi", "/v1/openapi.json"}
        async with session.get(url) as answer:
            assert answer.status == 401


async def test_the_page_is_for_any_grant_and_loads_and_runs_nothing() -> None:
    route = OpenApiRoute([Row("GET", "/a", Access.GRANTED, nothing, about=About("A"))], "/")
    async with (
        serve(route.rows(), Some(VIEW), Live(asyncio.get_running_loop())) as address,
        aiohttp.ClientSession() as session,
    ):
        url = "http://{}:{}/v1/openapi".format(*address)
        async with session.get(url, headers={"Authorization": "Bearer view"}) as answer:
            assert (answer.status, answer.content_type, answer.charset) == (200, "text/html", "utf-8")
            policy = answer.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'; style-src 'sha256-")
            assert "script" not in policy
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            text = await answer.text()
            assert all(f"GET {path}<" in text for path in ("/a", "/v1/openapi", "/v1/openapi.json"))
        async with session.get(url) as answer:
            assert answer.status == 401
