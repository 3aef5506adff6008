"""Requests that wait: each answer to whoever asked, once; and what a lost connection leaves of them."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from mhnos_runtime.client.errors import ConnectionLost, ProtocolViolation, RequestFailed
from mhnos_runtime.client.pending import PendingRequests
from mhnos_runtime.client.received import failure
from mhnos_runtime.wire import messages as m
from mhnos_runtime.wire.answers import Unknown


def raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def error_of(future: asyncio.Future[Any]) -> BaseException | None:
    return future.exception() if future.done() else None


async def test_an_answer_goes_to_the_one_who_asked_and_only_once() -> None:
    pending = PendingRequests()
    (one, first), (two, second) = (pending.add(m.Ping(), resend=True) for _ in range(2))
    assert (one, two) == (1, 2)
    assert msgspec.json.decode(second.payload) == {"type": "ping", "id": 2}
    answer = m.Pong(5, id=raw(two))
    assert pending.settle(answer)
    assert not pending.settle(answer)
    assert (second.future.result(), first.future.done()) == (answer, False)


@pytest.mark.parametrize("id_", [None, 0, 3, "1", [1], msgspec.UNSET])
async def test_what_nobody_asked_for_is_left_to_others(id_: object) -> None:
    pending = PendingRequests()
    _, waiting = pending.add(m.Ping(), resend=True)
    assert not pending.settle(m.Pong(5, id=msgspec.UNSET if id_ is msgspec.UNSET else raw(id_)))
    assert not waiting.future.done()


async def test_errors_and_what_is_not_understood_are_exceptions() -> None:
    pending = PendingRequests()
    one, refused = pending.add(m.Ping(), resend=True)
    two, garbled = pending.add(m.Ping(), resend=True)
    pending.settle(m.ErrorMessage("no", code="limit", hint="less", retry=True, id=raw(one)))
    pending.settle(Unknown(raw(two), "what is this"))
    found = error_of(refused.future)
    assert isinstance(found, RequestFailed)
    assert (found.message, found.code, found.hint, found.retry) == ("no", "limit", "less", True)
    assert isinstance(error_of(garbled.future), ProtocolViolation)


def test_an_error_of_1_0_has_only_a_text() -> None:
    found = failure(m.ErrorMessage("no"))
    assert (found.message, found.code, found.hint, found.retry) == ("no", "internal", "", False)


async def test_what_an_answer_names_is_known_before_later_messages_are_looked_at() -> None:
    pending = PendingRequests()
    seen: list[m.Message] = []
    number, _ = pending.add(m.Ping(), resend=True, on_answer=seen.append)
    pending.settle(m.Pong(5, id=raw(number)))
    assert [type(message) for message in seen] == [m.Pong]


async def test_nothing_is_done_for_one_who_has_gone() -> None:
    pending = PendingRequests()
    seen: list[m.Message] = []
    number, waiting = pending.add(m.Ping(), resend=True, on_answer=seen.append)
    waiting.future.cancel()
    assert pending.settle(m.Pong(5, id=raw(number)))
    assert seen == []


async def test_a_lost_connection_fails_what_may_not_be_done_twice_and_keeps_the_rest_in_order() -> None:
    pending = PendingRequests()
    _, once = pending.add(m.Ping(), resend=False)
    again = [pending.add(m.Ping(), resend=True)[1] for _ in range(2)]
    pending.connection_lost(1006)
    assert isinstance(error_of(once.future), ConnectionLost)
    assert pending.to_resend() == [waiting.payload for waiting in again]


async def test_a_message_that_is_too_big_is_not_sent_again() -> None:
    pending = PendingRequests()
    _, waiting = pending.add(m.Ping(), resend=True)
    pending.connection_lost(1009)
    found = error_of(waiting.future)
    assert isinstance(found, RequestFailed)
    assert (found.code, pending.to_resend()) == ("too-large", [])


async def test_the_end_fails_all_and_what_was_given_up_is_not_sent_again() -> None:
    pending = PendingRequests()
    number, given_up = pending.add(m.Ping(), resend=True)
    _, waiting = pending.add(m.Ping(), resend=True)
    pending.discard(number)
    pending.discard(number)
    assert pending.to_resend() == [waiting.payload]
    end = ConnectionLost("the end")
    pending.fail_all(end)
    assert (error_of(waiting.future), given_up.future.done(), pending.to_resend()) == (end, False, [])
