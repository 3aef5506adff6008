"""The server's side of a WebSocket on a transport of the test's own: turns, backpressure, large messages,
silent clients and the end. And what it asks of the libraries below it."""

from __future__ import annotations

import asyncio
import re
import tomllib
from collections.abc import Callable
from importlib import metadata
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp._websocket import helpers
from aiohttp._websocket.helpers import websocket_mask
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.server.connections import websocket
from mhnos_runtime.server.connections.websocket import WebSocket
from mhnos_runtime.wire import websocket as rfc
from tests.output.clock import Clock
from tests.project.checkout import ROOT
from tests.server.raw import BINARY, CLOSE, PING, PONG, TEXT, frame, masked

HEARTBEAT = 15.0


@pytest.fixture(autouse=True)
def one_turn_takes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is."""
    monkeypatch.setattr(websocket, "TURN_SECONDS", 1000.0)


def test_only_versions_of_aiohttp_that_were_tested_may_be_installed() -> None:
    """What is not documented may be gone with the next minor version: the range ends before it. To widen
    it, have the lock bring that version, so that the tests below look at it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [needed] = [need for need in project["dependencies"] if need.startswith("aiohttp")]
    lowest, ending = re.search(r">=3\.(\d+)", needed), re.search(r"<3\.(\d+)", needed)
    assert lowest, needed
    assert ending, needed
    major, minor = (int(part) for part in metadata.version("aiohttp").split(".")[:2])
    assert (major, minor + 1) == (3, int(ending[1]))
    assert int(lowest[1]) >= 11, "3.11 is the first with the function where it is imported from"


def test_the_private_function_of_aiohttp_is_the_compiled_one() -> None:
    assert websocket_mask is not helpers._websocket_mask_python, "masks are 50 times as slow without it"


@given(st.binary(min_size=4, max_size=4), st.binary(max_size=3000))
def test_the_private_function_of_aiohttp_masks_in_place(mask: bytes, data: bytes) -> None:
    found = bytearray(data)
    websocket_mask(mask, found)
    assert found == masked(mask, data)


def test_aiohttp_hands_over_what_it_has_received_already() -> None:
    """Not documented, and relied on: frames that come with the handshake."""
    assert callable(web.RequestHandler.set_parser)


class Transport(asyncio.Transport):
    """Notes what is done with it."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = True
        self.written = b""
        self.aborted = False
        self.half_closes = True
        self.ended = ""

    def get_protocol(self) -> asyncio.BaseProtocol:
        return asyncio.Protocol()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def can_write_eof(self) -> bool:
        return self.half_closes

    def write_eof(self) -> None:
        self.ended = "half"

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def close(self) -> None:
        self.ended = "whole"

    def abort(self) -> None:
        self.aborted = True


class Receiver:
    """A WebSocket on such a transport, and what came of it. enough: after so many messages it takes no more
    until it is told to."""

    enough = 1 << 20

    def __init__(self) -> None:
        self.transport = Transport()
        self.socket = WebSocket(self.transport, 1 << 23, HEARTBEAT)
        self.got: list[bytes] = []
        self.parts: list[tuple[bytes, bool]] = []
        self.writable = 0
        self.most = rfc.SMALL_MESSAGE_BYTES
        self.asked: list[tuple[bool, bytes]] = []
        self.socket.start(self)

    def on_message(self, data: bytes | bytearray, _binary: bool) -> None:
        self.got.append(bytes(data))
        if len(self.got) >= self.enough:
            self.socket.pause_reading()

    def limit(self, binary: bool, head: bytes) -> int:
        self.asked.append((binary, head))
        return self.most

    def on_part(self, data: bytes | bytearray, last: bool) -> None:
        self.parts.append((bytes(data), last))

    def on_writable(self) -> None:
        self.writable += 1

    def end(self) -> None:
        self.socket.connection_lost(None)


async def test_forty_thousand_messages_of_one_read_do_not_keep_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They come in turns, in order, and the socket is not read meanwhile."""
    monkeypatch.setattr(websocket, "TURN_SECONDS", 0.0)
    receiver = Receiver()
    receiver.socket.data_received(b"".join(frame(TEXT, b"%d" % number) for number in range(100)))
    turns = 1
    assert len(receiver.got) == 1
    while len(receiver.got) < 100:
        assert not receiver.transport.reading
        await asyncio.sleep(0)
        turns += 1
    await asyncio.sleep(0)
    assert receiver.got == [b"%d" % number for number in range(100)]
    assert turns == 100
    assert receiver.transport.reading
    receiver.end()


async def test_nothing_comes_while_the_handler_has_enough() -> None:
    receiver = Receiver()
    receiver.enough = 1
    receiver.socket.data_received(frame(TEXT, b"one") + frame(BINARY, b"two") + frame(PING, b"x"))
    assert (receiver.got, receiver.transport.reading) == ([b"one"], False)
    await asyncio.sleep(0)
    assert receiver.got == [b"one"]
    receiver.socket.resume_reading()
    await asyncio.sleep(0)
    assert receiver.got == [b"one", b"two"]
    assert receiver.transport.written == b""
    receiver.socket.resume_reading()
    await asyncio.sleep(0)
    assert receiver.transport.written == b"\x8a\x01x"
    assert receiver.transport.reading
    receiver.end()


async def test_a_receiver_that_has_enough_for_a_moment_only_keeps_nothing_waiting() -> None:
    receiver = Receiver()

    def on_message(data: bytes | bytearray, _binary: bool) -> None:
        receiver.socket.pause_reading()
        receiver.got.append(bytes(data))
        receiver.socket.resume_reading()

    receiver.on_message = on_message  # type: ignore[method-assign]
    receiver.socket.data_received(frame(TEXT, b"one") + frame(TEXT, b"two"))
    assert (receiver.got, receiver.transport.reading) == ([b"one", b"two"], True)
    receiver.end()


async def test_no_message_comes_after_a_close() -> None:
    receiver = Receiver()
    receiver.socket.pause_reading()
    receiver.socket.data_received(frame(TEXT, b"late") + frame(CLOSE, b"\x03\xe8"))
    receiver.socket.close(1001)
    await asyncio.sleep(0)
    assert receiver.got == []
    assert receiver.socket.close_code == 1000
    assert not receiver.socket.left
    receiver.end()


async def test_who_says_goodbye_and_does_not_read_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waited to be sent kept the connection open for ever."""
    monkeypatch.setattr(websocket, "CLOSE_SECONDS", 0.0)
    receiver = Receiver()
    receiver.socket.data_received(frame(CLOSE, b"\x03\xe8"))
    assert receiver.transport.written == b"\x88\x02\x03\xe8"
    while not receiver.transport.aborted:  # noqa: ASYNC110 - the loop's clock decides
        await asyncio.sleep(0)
    receiver.end()


@pytest.mark.parametrize(("half_closes", "end"), [(True, "half"), (False, "whole")], ids=["plain", "tls"])
async def test_who_broke_the_protocol_is_told_why_before_the_end(
    monkeypatch: pytest.MonkeyPatch, half_closes: bool, end: str
) -> None:
    """A client that was behind saw the end first. With TLS, which has no half of an end, it never came."""
    monkeypatch.setattr(websocket, "REASON_SECONDS", 0.01)
    receiver = Receiver()
    receiver.transport.half_closes = half_closes
    receiver.socket.data_received(frame(TEXT, reserved=1))
    assert receiver.transport.written == b"\x88\x02\x03\xea"
    assert receiver.transport.ended == ""
    # What still comes is taken from the network, and nothing is made of it.
    receiver.socket.data_received(frame(TEXT, b"late"))
    assert receiver.transport.reading
    async with asyncio.timeout(10):
        while not receiver.transport.ended:  # noqa: ASYNC110 - the loop's clock decides
            await asyncio.sleep(0.01)
    assert receiver.transport.ended == end
    assert receiver.got == []
    assert not receiver.transport.aborted
    receiver.end()


# Large messages


async def test_a_large_message_comes_in_parts_and_is_asked_about_once() -> None:
    receiver = Receiver()
    receiver.most = 4 << 20
    data = bytes(3 << 20)
    whole = frame(BINARY, data)
    for start in range(0, len(whole), 1 << 16):
        receiver.socket.data_received(whole[start : start + (1 << 16)])
        assert receiver.transport.reading
    assert [(binary, len(head)) for binary, head in receiver.asked] == [(True, rfc.HEAD_BYTES)]
    assert b"".join(part for part, _last in receiver.parts) == data
    assert max(len(part) for part, _last in receiver.parts) <= 1 << 16
    assert [last for _part, last in receiver.parts] == [False] * (len(receiver.parts) - 1) + [True]
    assert receiver.got == []
    receiver.end()


async def test_a_large_message_that_may_not_be_ends_the_connection() -> None:
    receiver = Receiver()
    receiver.socket.data_received(frame(TEXT, b"x" * 5000, length=2 << 20))
    assert receiver.transport.written == b"\x88\x02\x03\xf1"
    assert (receiver.parts, len(receiver.asked)) == ([], 1)
    receiver.end()


async def test_what_was_received_before_the_start_comes_first() -> None:
    """With the handshake; the HTTP side hands it over."""
    receiver = Receiver()
    for message in (b"first", b"second"):
        assert receiver.socket.feed_data(frame(TEXT, message)) == (False, b"")
    receiver.socket.data_received(frame(TEXT, b"third"))
    receiver.socket.feed_eof()
    assert receiver.got == []
    await asyncio.sleep(0)
    assert receiver.got == [b"first", b"second", b"third"]
    receiver.end()


# Sending


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
async def test_each_length_has_its_shortest_form(size: int) -> None:
    receiver = Receiver()
    receiver.socket.send(b"head", bytes(size), True)
    written = receiver.transport.written
    total = size + 4
    expected = bytes([0x82, total]) if total < 126 else b"\x82\x7e" if total < 1 << 16 else b"\x82\x7f"
    assert written.startswith(expected)
    assert written.endswith(b"head" + bytes(size))
    assert len(written) == total + (2 if total < 126 else 4 if total < 1 << 16 else 10)
    receiver.end()


async def test_fragments_are_one_message() -> None:
    receiver = Receiver()
    receiver.socket.send(b"1", b"", False, last=False)
    receiver.socket.send(b"2", b"", False, first=False, last=False)
    receiver.socket.send(b"3", b"", False, first=False)
    assert receiver.transport.written == b"\x01\x011" + b"\x00\x012" + b"\x80\x013"
    receiver.end()


async def test_who_takes_nothing_gets_no_pongs_to_keep() -> None:
    receiver = Receiver()
    receiver.socket.pause_writing()
    receiver.socket.data_received(frame(PING, b"1") * 1000)
    assert (receiver.transport.written, receiver.socket.writable) == (b"", False)
    receiver.socket.resume_writing()
    assert receiver.writable == 1
    receiver.socket.data_received(frame(PING, b"2"))
    assert receiver.transport.written == b"\x8a\x012"
    receiver.end()


# Silent clients


class Stopwatch:
    """The event loop's clock, which stands still until it is told."""

    def __init__(self, receiver: Receiver) -> None:
        self.clock = Clock()
        self._socket = receiver.socket
        receiver.socket._heartbeat.cancel()
        receiver.socket._loop = cast(Any, self)
        receiver.socket._heard = 0.0
        self.call_soon = asyncio.get_running_loop().call_soon
        self.call_later(HEARTBEAT / 2, receiver.socket._beat)

    def time(self) -> float:
        return self.clock.now

    def call_later(self, seconds: float, action: Callable[..., None], *arguments: object) -> Any:
        return self.clock.later(seconds, lambda: action(*arguments))


async def test_a_silent_client_is_asked_and_then_given_up() -> None:
    receiver = Receiver()
    clock = Stopwatch(receiver).clock
    clock.let_pass(HEARTBEAT * 0.9)
    assert receiver.transport.written == b""
    clock.let_pass(HEARTBEAT * 0.2)
    assert receiver.transport.written == b"\x89\x00"
    clock.let_pass(HEARTBEAT * 0.8)
    assert (receiver.transport.aborted, receiver.got) == (False, [])
    clock.let_pass(HEARTBEAT * 0.2)
    assert receiver.transport.aborted
    receiver.end()


async def test_one_that_answers_or_says_anything_stays() -> None:
    receiver = Receiver()
    clock = Stopwatch(receiver).clock
    for _ in range(10):
        clock.let_pass(HEARTBEAT * 1.4)
        receiver.socket.data_received(frame(PONG))
    assert not receiver.transport.aborted
    receiver.end()
    assert clock.waiting == 0


async def test_one_that_is_not_read_is_not_silent() -> None:
    """It is this side that does not listen."""
    receiver = Receiver()
    clock = Stopwatch(receiver).clock
    receiver.socket.pause_reading()
    clock.let_pass(HEARTBEAT * 10)
    assert (receiver.transport.aborted, receiver.transport.written) == (False, b"")
    receiver.socket.resume_reading()
    await asyncio.sleep(0)
    clock.let_pass(HEARTBEAT * 3)
    assert receiver.transport.aborted
    receiver.end()


async def test_one_that_is_told_goodbye_is_not_asked() -> None:
    receiver = Receiver()
    clock = Stopwatch(receiver).clock
    receiver.socket.close(1001)
    clock.let_pass(websocket.CLOSE_SECONDS - 0.1)
    assert receiver.transport.written == b"\x88\x02\x03\xe9"
    assert (receiver.transport.aborted, receiver.got) == (False, [])
    clock.let_pass(0.2)
    assert receiver.transport.aborted
    receiver.end()


# The end


async def test_a_close_without_a_code_is_answered_without_one() -> None:
    receiver = Receiver()
    receiver.socket.data_received(frame(CLOSE) + frame(TEXT, b"late"))
    assert receiver.transport.written == b"\x88\x00"
    assert (receiver.socket.close_code, receiver.socket.left, receiver.got) == (rfc.NORMAL, True, [])
    receiver.end()


async def test_nothing_is_sent_or_held_behind_a_close() -> None:
    receiver = Receiver()
    receiver.socket.close(1001)
    written = receiver.transport.written
    receiver.socket.close(1002)
    receiver.socket.send(b"late", b"", False)
    receiver.socket.pause_reading()
    receiver.socket.data_received(frame(PING) + frame(BINARY, b"late"))
    assert (receiver.transport.written, receiver.got) == (written, [])
    # The client's close frame is still waited for.
    assert receiver.transport.reading
    receiver.end()


async def test_a_broken_connection_is_told_once_to_both_that_had_it() -> None:
    lost: list[object] = []

    class Former(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            lost.append(exc)

    receiver = Receiver()
    receiver.socket._former = Former()
    receiver.socket.connection_lost(None)
    receiver.socket.connection_lost(None)
    await receiver.socket.closed
    assert (receiver.socket.close_code, receiver.socket.left, len(lost)) == (None, False, 2)


async def test_one_that_broke_the_protocol_and_is_gone_needs_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Transport, "is_closing", lambda _self: True)
    receiver = Receiver()
    clock = Stopwatch(receiver).clock
    receiver.socket.data_received(frame(TEXT, reserved=1))
    clock.let_pass(websocket.REASON_SECONDS + 0.1)
    assert (receiver.transport.ended, receiver.transport.aborted) == ("", False)
    receiver.socket.abort()
    assert receiver.transport.aborted
    receiver.end()
