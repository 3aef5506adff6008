"""Who has to give way, without sockets, and how long a connection may wait for its next request.

What strangers can do to a whole server is tried in tests/hostile.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
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


def test_a_stranger_is_known_as_one(strangers: Any) -> None:
    (guest,) = fill(strangers, "a", 1)
    assert guest in strangers
    assert Guest("a", 1) not in strangers
    assert Guest("b", 0) not in strangers
    strangers.remove(guest)
    assert guest not in strangers


class Deaf(asyncio.Protocol):
    """Takes what it is sent for a part of a request."""


def opened(listener: socket.socket, protocol: type[asyncio.Protocol] = Deaf) -> Door:
    made = Door(protocol, None, LimitedLog(logs.get("test"), Limiter(time.monotonic)))
    made.open(listener)
    return made


Dial = Callable[[tuple[str, int]], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


@pytest.fixture
async def dial() -> AsyncIterator[Dial]:
    """Opens connections, which are closed with the test."""
    writers: list[asyncio.StreamWriter] = []

    async def connect(address: tuple[str, int]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*address)
        writers.append(writer)
        return reader, writer

    yield connect
    for writer in writers:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether the connection ends, by a reset or not, without a byte."""
    with contextlib.suppress(ConnectionResetError):
        return await asyncio.wait_for(reader.read(), 20) == b""
    return True


async def test_a_request_that_is_too_long_or_too_slow_is_cut(
    dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    made = opened(listener)
    reader, writer = await dial(address)
    writer.write(bytes(door.MAX_REQUEST_BYTES + 1))
    assert await ended(reader)
    monkeypatch.setattr(door, "REQUEST_SECONDS", 0.05)
    silent, _ = await dial(address)
    slow, writer = await dial(address)
    writer.write(b"GET")
    assert await ended(silent)
    assert await ended(slow)
    assert len(made.strangers) == 0
    made.close()


class Full(socket.socket):
    """A listening socket. full: whether the process has no descriptors left, for one attempt."""

    full = False

    def accept(self) -> Any:
        if Full.full:
            Full.full = False
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


async def test_without_descriptors_the_oldest_stranger_makes_room(
    dial: Dial, caplog: pytest.LogCaptureFixture
) -> None:
    """accept(2) fails, and the connection stays in the backlog: the loop would turn for nothing."""
    listener = Full(fileno=socket.create_server(("127.0.0.1", 0)).detach())
    address = listener.getsockname()
    made = opened(listener, Answering)
    first, writer = await dial(address)
    writer.write(b"one")
    assert await first.read(10) == b"one"
    Full.full = True
    second, writer = await dial(address)
    writer.write(b"two")
    assert await ended(first)
    assert await asyncio.wait_for(second.read(10), 20) == b"two"
    assert "no connection can be accepted now" in caplog.text
    made.close()


async def test_a_closed_door_accepts_nobody_and_is_not_opened_by_a_timer() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    made = opened(listener)
    made.close()
    made._watch(listener)
    assert listener.fileno() == -1


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
