"""The table of requests: who may ask what, and that each request is answered once."""

from __future__ import annotations

import asyncio
import typing
from typing import Any, cast

import pytest

from mhnos_runtime.errors import NotFound
from mhnos_runtime.server.auth.grants import EVERYTHING, Access, Forbidden, Grant, Scope
from mhnos_runtime.server.connections.requests.table import Requests, Row
from mhnos_runtime.wire import messages as m
from tests.server.connections.scene import Scene


class Asker:
    """A connection that notes its answers."""

    def __init__(self, grant: Grant = EVERYTHING) -> None:
        self.grant = grant
        self.answers: list[m.Message] = []
        self.failures: list[tuple[str, int | None]] = []

    def answer(self, message: m.Message) -> None:
        self.answers.append(message)

    def fail(self, error: Exception, _request: m.Message, *, pid: int | None) -> None:
        self.failures.append((str(error), pid))


def requests(handler: Any, needs: Any = Scope.CONTROL, whole: Any = "") -> Requests:
    row = Row(needs, lambda _connection, request: handler(request), whole)
    return Requests([{m.CloseStdin: row}, {m.Ping: row._replace(needs=Access.GRANTED)}], cast(Any, None))


async def ask(handler: Any, grant: Grant = EVERYTHING, **row: Any) -> Asker:
    asker = Asker(grant)
    work = requests(handler, **row).handle(cast(Any, asker), m.CloseStdin(5))
    if work is not None:
        assert (asker.answers, asker.failures) == ([], [])
        await work
    return asker


def raising(_request: m.Message) -> None:
    raise NotFound("there is none")


async def raising_later(_request: m.Message) -> None:
    await asyncio.sleep(0)
    raise NotFound("there is none")


async def pong(_request: m.Message) -> m.Message:
    await asyncio.sleep(0)
    return m.Pong(1)


async def nothing(_request: m.Message) -> None:
    await asyncio.sleep(0)


@pytest.mark.parametrize("handler", [pong, lambda _request: m.Pong(1)], ids=["awaited", "at once"])
async def test_what_a_handler_gives_is_the_answer(handler: Any) -> None:
    assert (await ask(handler)).answers == [m.Pong(1)]


@pytest.mark.parametrize("handler", [nothing, lambda _request: None], ids=["awaited", "at once"])
async def test_a_handler_may_see_to_the_answer_itself(handler: Any) -> None:
    asker = await ask(handler)
    assert (asker.answers, asker.failures) == ([], [])


@pytest.mark.parametrize("handler", [raising_later, raising], ids=["awaited", "at once"])
async def test_what_a_handler_raises_is_answered_with_the_pid_that_was_asked_for(handler: Any) -> None:
    assert (await ask(handler)).failures == [("there is none", 5)]


async def test_what_is_no_error_of_the_domain_is_not_answered() -> None:
    def defect(_request: m.Message) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await ask(defect)


@pytest.mark.parametrize(
    ("grant", "row"),
    [
        (Grant("x", frozenset({Scope.VIEW})), {}),
        (Grant("x", frozenset({Scope.CONTROL})), {"needs": Access.OPERATOR}),
        (Grant("x", frozenset(Scope), processes=frozenset({5})), {"whole": "processes"}),
        (Grant("x", frozenset(Scope), paths=("/a",)), {"whole": "paths"}),
    ],
    ids=["scope", "operator", "processes", "paths"],
)
async def test_what_a_grant_does_not_have_is_not_done(grant: Grant, row: dict[str, Any]) -> None:
    done: list[m.Message] = []
    asker = await ask(done.append, grant, **row)
    assert (done, len(asker.failures)) == ([], 1)
    with pytest.raises(Forbidden):
        requests(done.append, **row).check(grant, m.CloseStdin)


async def test_an_error_about_no_process_has_no_pid() -> None:
    asker = Asker()
    requests(raising).handle(cast(Any, asker), m.Ping())
    assert asker.failures == [("there is none", None)]


async def test_every_request_of_the_protocol_has_a_row(scene: Scene) -> None:
    """Or a client could bring about a defect with it."""
    assert set(cast(Requests, scene.services.requests).rows) == set(typing.get_args(m.Request))
