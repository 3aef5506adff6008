"""What the server's side of a WebSocket asks of the libraries below it, and that it is fair."""

from __future__ import annotations

import asyncio
import re
import tomllib
from importlib import metadata

import pytest
from aiohttp import web
from aiohttp._websocket import helpers
from aiohttp._websocket.helpers import websocket_mask
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.server.connections import websocket
from mhnos_runtime.server.connections.websocket import WebSocket
from tests.project.checkout import ROOT
from tests.server.raw import BINARY, CLOSE, PING, TEXT, frame, masked


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
    """A WebSocket on such a transport, and what came of it."""

    def __init__(self) -> None:
        self.transport = Transport()
        self.socket = WebSocket(self.transport, 1 << 23, 15)
        self.got: list[bytes] = []
        self.socket.on_message = lambda data, _binary: self.got.append(bytes(data))
        self.socket.start()

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

    def one(data: bytes | bytearray, _binary: bool) -> None:
        receiver.got.append(bytes(data))
        receiver.socket.pause_reading()

    receiver.socket.on_message = one
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
