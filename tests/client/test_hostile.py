"""What no server sends, over both kinds of connection: the client says so and leaves, at once and bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from mhnos_runtime.client.direct import Direct
from mhnos_runtime.client.discovery import Target
from mhnos_runtime.client.errors import ProtocolViolation
from mhnos_runtime.client.link import Link, LinkClosed
from mhnos_runtime.wire import frames
from mhnos_runtime.wire import messages as m
from tests.client.peer import Peer, Scripted, target
from tests.server import raw

VIOLATIONS = {
    "a mask": raw.frame(raw.TEXT, b"{}", mask=b"abcd"),
    "a mask of zeros": raw.frame(raw.TEXT, b"{}", mask=bytes(4)),
    "2^63 bytes": raw.frame(raw.BINARY, length=1 << 63, form=64, mask=None),
    "more than the protocol has": raw.frame(raw.TEXT, length=(1 << 27) + 1, mask=None),
    "output of 2 MiB": raw.frame(raw.BINARY, bytes(2 << 20), mask=None),
    "output of 65 KiB": raw.frame(
        raw.BINARY, frames.pack_header(frames.STDOUT, 0, 1, 0) + bytes(65 << 10), mask=None
    ),
    "a length in a longer form": raw.frame(raw.TEXT, b"{}", form=64, mask=None),
    "a fragment of nothing": raw.frame(raw.CONTINUATION, b"{}", mask=None),
    "a message inside of another": raw.frame(raw.TEXT, b"{", final=False, mask=None)
    + raw.frame(raw.TEXT, b"}", mask=None),
    "text that is no UTF-8": raw.frame(raw.TEXT, b"\xff", mask=None),
    "half of a character": raw.frame(raw.TEXT, b"\xc3", mask=None),
    "a reserved opcode": raw.frame(0x3, b"", mask=None),
    "a reserved bit": raw.frame(raw.TEXT, b"{}", reserved=4, mask=None),
    "a ping in fragments": raw.frame(raw.PING, final=False, mask=None),
    "a ping of 126 bytes": raw.frame(raw.PING, bytes(126), mask=None),
    "a close of one byte": raw.frame(raw.CLOSE, b"\x03", mask=None),
    "a close with 1006": raw.frame(raw.CLOSE, b"\x03\xee", mask=None),
    "a short frame of output": raw.frame(raw.BINARY, bytes(15), mask=None),
    "input": raw.frame(raw.BINARY, frames.pack_header(frames.INPUT, 0, 1, 0) + b"x", mask=None),
}


def directly(there: Target) -> None:
    with Direct.open(there) as runtime:
        with pytest.raises(ProtocolViolation):
            runtime.receive(20)
        with pytest.raises(ProtocolViolation):
            runtime.send(m.Ping())


def by_a_link(there: Target) -> None:
    async def use() -> None:
        link = await Link.open(there.url, there.token)
        with pytest.raises(ProtocolViolation):
            await asyncio.wait_for(link.receive(), 20)
        with pytest.raises(LinkClosed) as caught:
            await link.receive()
        assert caught.value.code == 1002
        await link.send(b"{}")
        await link.close()

    asyncio.run(use())


@pytest.mark.parametrize("receives", [directly, by_a_link])
@pytest.mark.parametrize("data", VIOLATIONS.values(), ids=VIOLATIONS)
def test_what_no_server_sends_ends_the_connection(data: bytes, receives: Callable[[Target], None]) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        try:
            peer.send(data)
        except ConnectionError:
            return  # it did not wait for the end
        peer.until_closed()

    with Scripted(script) as server:
        receives(target(server))


@pytest.mark.parametrize("receives", [directly, by_a_link])
def test_a_violation_that_comes_with_the_greeting(receives: Callable[[Target], None]) -> None:
    def script(peer: Peer) -> None:
        peer.greet(raw.frame(raw.TEXT, b"{}", mask=b"abcd"))
        peer.until_closed()

    with Scripted(script) as server:
        receives(target(server))
