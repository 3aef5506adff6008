"""Errors as HTTP shows them, and what it shows of those that nobody expected."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from mhnos_runtime.errors import (
    InvalidRequest,
    LimitReached,
    MhnosError,
    NotFound,
    Refused,
    StartFailed,
    Unavailable,
)
from mhnos_runtime.observe import logs
from mhnos_runtime.observe.limit import LimitedLog, Limiter
from mhnos_runtime.server.auth.grants import Access, Forbidden
from mhnos_runtime.server.auth.live import Live
from mhnos_runtime.server.http import app as module
from mhnos_runtime.server.http.app import App
from mhnos_runtime.server.http.call import Call
from mhnos_runtime.server.http.problems import HttpError, problem, status_of
from mhnos_runtime.server.http.routes import Routes, Row
from tests.server.auth.gates import HOST, TOKEN, Clock, gate


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidRequest("x"), 400),
        (InvalidRequest("x", code="too-large"), 413),
        (InvalidRequest("x", code="name-taken"), 409),
        (NotFound("x"), 404),
        (Refused("x"), 403),
        (Forbidden("x"), 403),
        (LimitReached("x"), 503),
        (Unavailable("x"), 503),
        (Unavailable("x", code="disk-full"), 507),
        (StartFailed("x"), 500),
        (MhnosError("x"), 500),
        (HttpError(426, "upgrade-required", "x"), 426),
    ],
)
def test_each_kind_of_error_has_its_status(error: MhnosError, status: int) -> None:
    assert status_of(error) == status


def test_a_problem_says_what_the_error_says() -> None:
    answer = problem(HttpError(405, "method-not-allowed", "This takes GET", {"Allow": "GET"}, "do this"))
    assert (answer.status, answer.headers["Allow"]) == (405, "GET")
    body = json.loads(answer.text or "")
    assert body == {"error": "This takes GET", "code": "method-not-allowed", "hint": "do this"}


class AnyVisitor:
    """One that is still there."""

    overran = False

    def answering(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def welcome(self) -> None:
        """No door remembers it."""

    def close(self) -> None:
        """There is no connection."""


async def test_an_unexpected_error_is_a_number_that_the_log_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an exception says may be about paths and secrets: none of it leaves the server."""

    async def broken(_call: Call) -> None:
        raise RuntimeError("secret-detail")

    log = LimitedLog(logs.get("server"), Limiter(Clock()))
    app = App(
        Routes([Row("GET", "/", Access.GRANTED, broken)]), gate(), Live(asyncio.get_running_loop()), log
    )
    written: list[dict[str, Any]] = []
    monkeypatch.setattr(log, "exception", lambda message, **fields: written.append(fields))
    monkeypatch.setattr(module, "_visitor", lambda _request: AnyVisitor())
    answer: Any = await app.handle(make_mocked_request("GET", f"/?token={TOKEN}", headers={"Host": HOST}))
    body = json.loads(answer.text)
    assert (answer.status, body["code"], body["id"]) == (500, "internal", written[0]["id"])
    assert "secret-detail" not in answer.text
