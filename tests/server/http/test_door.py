"""Who has to give way, without sockets, and how long a connection may wait for its next request.

What strangers can do to a whole server is tried in tests/hostile.
"""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import dataclass
from typing import Any, cast

import pytest

from mhnos_runtime.observe import logs
from mhnos_runtime.observe.limit import LimitedLog, Limiter
from mhnos_runtime.server.http import door
from mhnos_runtime.server.http.door import (
    MAX_NEWCOMERS,
    MAX_STRANGERS,
    MAX_STRANGERS_OF_AN_ADDRESS,
    NEW_SECONDS,
    REQUEST_SECONDS,
    Door,
    Strangers,
    Visitor,
)

LATER = NEW_SECONDS


@dataclass(frozen=True)
class Guest:
    key: str
    number: int


@pytest.fixture
def strangers() -> Any:
    return Strangers()


def fill(strangers: Any, key: str, number: int) -> list[Guest]:
    guests = [Guest(key, index) for index in range(number)]
    for guest in guests:
        strangers.add(guest, 0.0)
    return guests


def test_nobody_is_in_the_way_while_there_is_room(strangers: Any) -> None:
    fill(strangers, "a", MAX_STRANGERS_OF_AN_ADDRESS - 1)
    assert strangers.in_the_way("a", LATER) is None
    assert strangers.in_the_way("b", LATER) is None


def test_the_oldest_of_an_address_makes_room_for_it(strangers: Any) -> None:
    guests = fill(strangers, "a", MAX_STRANGERS_OF_AN_ADDRESS)
    assert strangers.in_the_way("a", LATER) is guests[0]
    assert strangers.in_the_way("b", LATER) is None


def test_who_has_done_something_is_the_last_to_go(strangers: Any) -> None:
    guests = fill(strangers, "a", MAX_STRANGERS_OF_AN_ADDRESS)
    strangers.renew(guests[0])
    assert strangers.in_the_way("a", LATER) is guests[1]
    assert len(strangers) == MAX_STRANGERS_OF_AN_ADDRESS


def test_who_has_done_something_is_no_newcomer_again(strangers: Any) -> None:
    """256 who asked for health just before their second was over all stayed, for a minute."""
    guests = fill(strangers, "a", MAX_STRANGERS_OF_AN_ADDRESS + 1)
    for guest in guests:
        strangers.renew(guest)
    assert strangers.in_the_way("a", LATER, coming=0) is guests[0]
    assert strangers.remove(guests[0])
    strangers.renew(guests[0])
    assert strangers.in_the_way("a", LATER, coming=0) is None


def test_the_address_with_the_most_makes_room_for_another(strangers: Any) -> None:
    alone = fill(strangers, "alone", 1)
    many = fill(strangers, "many", MAX_STRANGERS_OF_AN_ADDRESS)
    fill(strangers, "some", MAX_STRANGERS - len(strangers))
    assert strangers.in_the_way("new", LATER) is many[0]
    assert strangers.in_the_way("alone", LATER) is many[0]
    assert strangers.remove(alone[0])
    assert strangers.in_the_way("new", LATER) is None


def test_who_is_not_there_cannot_be_removed_twice(strangers: Any) -> None:
    (guest,) = fill(strangers, "a", 1)
    assert strangers.remove(guest)
    assert not strangers.remove(guest)
    assert len(strangers) == 0
    assert strangers.oldest() is None


def test_newcomers_have_a_moment_until_there_are_very_many(strangers: Any) -> None:
    """A hundred clients of one address that came back together displaced each other."""
    guests = fill(strangers, "a", MAX_NEWCOMERS - 1)
    assert strangers.in_the_way("a", NEW_SECONDS / 2) is None
    assert strangers.in_the_way("a", LATER, coming=0) is guests[0]
    strangers.add(Guest("a", -1), 0.0)
    assert strangers.in_the_way("a", NEW_SECONDS / 2) is guests[0]


class Answering(asyncio.Protocol):
    """Takes what it is sent for a request, and gives it back."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        visitor = self._transport.get_protocol()
        assert isinstance(visitor, Visitor)
        with visitor.answering():
            self._transport.write(data)


async def test_a_connection_that_asks_for_nothing_more_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    opened = Door(Answering, None, LimitedLog(logs.get("test"), Limiter(time.monotonic)))
    opened.open(listener)
    reader, writer = await asyncio.open_connection(*address)
    for request in (b"one", b"two"):
        writer.write(request)
        assert await reader.read(10) == request
        # From the second one on: a busy machine may take longer than this to send it.
        monkeypatch.setattr(door, "IDLE_SECONDS", 0.2)
    # By the time for a request alone it would stay for longer.
    assert await asyncio.wait_for(reader.read(), REQUEST_SECONDS / 2) == b""
    writer.close()
    opened.close()
