"""One connection: what opens it, what refuses it and in which words, what comes out of it, and its end."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from mhnos_runtime.client import link as subject
from mhnos_runtime.client.errors import ClientError, ConnectFailed, Forbidden, ProtocolViolation, Unauthorized
from mhnos_runtime.client.link import Link, LinkClosed
from mhnos_runtime.client.opening import LONGEST_WAIT_S, refusal
from mhnos_runtime.client.received import unpack
from mhnos_runtime.client.stream import Stream
from mhnos_runtime.testing import TestServer
from mhnos_runtime.wire import frames
from mhnos_runtime.wire import messages as m
from mhnos_runtime.wire.answers import Unknown
from mhnos_runtime.wire.encode import encode
from tests.client import peer as scripted
from tests.client.fake import FakeServer, Peer
from tests.client.peer import Scripted
from tests.server import raw
from tests.server.certificate import make_certificate


async def test_it_is_open_once_the_server_has_greeted() -> None:
    async with FakeServer() as fake:
        link = await Link.open(fake.url, None)
        assert link.hello.server_id == fake.server_id
        await link.send(encode(m.Ping(id=msgspec.Raw(b"1"))))
        assert isinstance(await link.receive(), m.Pong)
        await link.close()


async def test_messages_frames_and_what_is_not_understood_come_in_order() -> None:
    async with FakeServer() as fake:
        link = await Link.open(fake.url, None)
        await fake.peers[0].send(type="gap", pid=1, to=2, **{"from": 0})
        await fake.peers[0].send_output(1, 2, b"ab")
        await fake.peers[0].send(type="fromTheFuture", id=7)
        assert await link.receive() == m.Gap(1, 0, 2)
        frame = await link.receive()
        assert isinstance(frame, frames.DataFrame)
        assert (frame.pid, frame.offset, bytes(frame.payload)) == (1, 2, b"ab")
        newer = await link.receive()
        assert isinstance(newer, Unknown)
        assert newer.id == msgspec.Raw(b"7")
        await link.close()


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011])
async def test_the_close_code_is_the_servers(code: int) -> None:
    async with FakeServer() as fake:
        link = await Link.open(fake.url, None)
        await fake.peers[0].socket.close(code=code)
        with pytest.raises(LinkClosed) as caught:
            await link.receive()
        assert caught.value.code == code


async def test_a_cut_is_1006_and_what_is_sent_then_is_nobodys_error() -> None:
    async with FakeServer() as fake:
        link = await Link.open(fake.url, None)
        fake.peers[0].cut()
        with pytest.raises(LinkClosed) as caught:
            await link.receive()
        assert caught.value.code == 1006
        await link.send(encode(m.Ping()))
        await link.send_frame(frames.pack_header(frames.INPUT, 0, 1, 0))
        await link.close()


@pytest.mark.parametrize(
    ("status", "error", "code", "retry", "text"),
    [
        (401, Unauthorized, "unauthorized", False, "refused the token"),
        (403, Forbidden, "forbidden", False, "refuses this client"),
        (404, ConnectFailed, "connect-failed", False, "answered HTTP 404"),
        (421, Forbidden, "forbidden-host", False, "does not answer to this name"),
        (429, ConnectFailed, "connect-failed", True, "answered HTTP 429"),
        (503, ConnectFailed, "connect-failed", True, "answered HTTP 503"),
    ],
)
async def test_a_refusal_has_the_words_of_its_status(
    status: int, error: type[ClientError], code: str, retry: bool, text: str
) -> None:
    async with FakeServer() as fake:
        fake.refuse_status = status
        with pytest.raises(error, match=text) as caught:
            await Link.open(fake.url, None)
    assert (caught.value.code, caught.value.retry) == (code, retry)


async def test_a_refusal_brings_what_the_server_asks_to_wait() -> None:
    async with FakeServer() as fake:
        fake.refuse_status, fake.refuse_headers = 429, {"Retry-After": "17"}
        with pytest.raises(ConnectFailed) as caught:
            await Link.open(fake.url, None)
    assert (caught.value.retry_after_s, caught.value.hint) == (17, "try again in 17 s")


@pytest.mark.parametrize(
    ("status", "header", "wait_s"),
    [
        (503, "0", 0),
        (503, "1", 1),
        (429, "301", LONGEST_WAIT_S),
        (429, "9" * 5000, LONGEST_WAIT_S),
        (429, None, None),
        (429, "", None),
        (429, "-1", None),
        (429, "1.5", None),
        (429, "٣", None),
        (429, "Fri, 31 Dec 1999 23:59:59 GMT", None),
        (502, "7", None),
    ],
)
def test_only_seconds_are_waited_and_not_for_ever(
    status: int, header: str | None, wait_s: float | None
) -> None:
    error = refusal("http://x", status, header)
    assert isinstance(error, ConnectFailed)
    assert error.retry_after_s == wait_s


async def test_a_server_of_protocol_1_0_is_not_asked_again() -> None:
    async with FakeServer() as fake:
        fake.subprotocol = False
        with pytest.raises(ConnectFailed, match="speaks only protocol") as caught:
            await Link.open(fake.url, None)
        assert not caught.value.retry


class Stranger:
    """Something that opens a WebSocket and is no runtime. says: its first frame; None: it closes at once."""

    def __init__(self, says: str | bytes | None, *, silent: bool = False) -> None:
        self._says, self._silent = says, silent
        self._over = asyncio.Event()

    async def __aenter__(self) -> str:
        app = web.Application()
        app.router.add_get("/", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if self._silent:
            await self._over.wait()
        socket = web.WebSocketResponse(protocols=(m.SUBPROTOCOL,))
        await socket.prepare(request)
        if isinstance(self._says, bytes):
            await socket.send_bytes(self._says)
        elif self._says is not None:
            await socket.send_str(self._says)
            await socket.receive()
        return socket


@pytest.mark.parametrize(
    ("says", "retry"),
    [("hello", False), (json.dumps({"type": "pong", "time": 1}), False), (b"x", False), (None, True)],
)
async def test_what_does_not_greet_is_no_runtime(says: str | bytes | None, retry: bool) -> None:
    async with Stranger(says) as url:
        with pytest.raises(ConnectFailed, match="did not greet") as caught:
            await Link.open(url, None)
        assert caught.value.retry is retry


async def test_what_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "CONNECT_TIMEOUT_S", 0.05)
    async with Stranger(None, silent=True) as url:
        with pytest.raises(ConnectFailed, match="did not answer within") as caught:
            await Link.open(url, None)
        assert caught.value.retry


async def test_where_nobody_listens_the_systems_own_words_are_shown() -> None:
    async with FakeServer() as fake:
        url = fake.url
    with pytest.raises(ConnectFailed, match="Connection refused") as caught:
        await Link.open(url, None)
    assert "mhnos-runtime serve" in caught.value.hint


async def test_a_goodbye_that_nobody_answers_ends_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "CLOSE_TIMEOUT_S", 0.05)
    stuck = asyncio.Event()

    async def busy(_peer: Peer, _request: dict[str, Any]) -> bool:
        await stuck.wait()
        return True

    async with FakeServer() as fake:
        fake.handlers["ping"] = busy
        link = await Link.open(fake.url, None)
        await link.send(encode(m.Ping()))
        await asyncio.wait_for(link.close(), 10)
        with pytest.raises(subject.LinkClosed):
            await asyncio.wait_for(link.receive(), 10)
        stuck.set()


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        bytes(15),
        frames.pack_header(9, 0, 1, 0),
        frames.pack_header(frames.STDOUT, frames.NUMBERED, 1, 0),
        frames.pack_header(frames.INPUT, 0, 1, 0) + b"x",
        frames.pack_header(frames.STDOUT, 0, 1, 0) + bytes(frames.MAX_OUTPUT_PAYLOAD_BYTES + 1),
    ],
)
def test_a_frame_that_no_server_sends_is_a_violation(frame: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        unpack(frame)


# Over a scripted server


def with_link(
    script: Callable[[scripted.Peer], object], use: Callable[[Link], Awaitable[None]], **options: Any
) -> None:
    async def main(url: str) -> None:
        link = await Link.open(url, None, **options)
        try:
            await asyncio.wait_for(use(link), 20)
        finally:
            await link.close()

    with Scripted(script) as server:
        asyncio.run(main(server.url))


def test_a_message_in_fragments_of_many_megabytes_and_pings_between() -> None:
    big = json.dumps({"type": "pong", "time": 1, "padding": "é" * (3 << 20)}, ensure_ascii=False).encode()

    def script(peer: scripted.Peer) -> None:
        peer.greet()
        peer.send_frame(raw.TEXT, big[: 1 << 20], final=False)
        peer.send_frame(raw.PING, b"between")
        peer.send_frame(raw.CONTINUATION, big[1 << 20 :])
        assert peer.frame() == (raw.PONG, b"between")
        peer.until_closed()

    async def use(link: Link) -> None:
        assert isinstance(await link.receive(), m.Pong)

    with_link(script, use)


def test_a_silent_server_is_asked_and_then_given_up() -> None:
    seen: list[int] = []

    def script(peer: scripted.Peer) -> None:
        peer.greet()
        seen.append(peer.frame()[0])
        peer.send_frame(raw.PONG)
        seen.extend(opcode for opcode, _ in peer.until_closed())

    async def use(link: Link) -> None:
        with pytest.raises(LinkClosed) as caught:
            await link.receive()
        assert caught.value.code == 1006

    with_link(script, use, heartbeat_s=0.1)
    assert set(seen) == {raw.PING}


def test_what_nobody_receives_waits_in_the_network() -> None:
    """Otherwise a flood fills the memory of a client whose consumer is slow."""
    piece = frames.pack_header(frames.STDOUT, 0, 1, 0) + bytes(60_000)
    sent, total = [0], 2000
    stuck = threading.Event()

    def script(peer: scripted.Peer) -> None:
        peer.greet()
        peer.connection.settimeout(0.2)
        frame = raw.frame(raw.BINARY, piece, mask=None)
        data, at = frame * 10, 0
        while sent[0] < total * len(frame):
            try:
                at = sent[0] % len(frame)
                sent[0] += peer.connection.send(data[at:])
            except TimeoutError:
                stuck.set()
        peer.connection.settimeout(20)
        peer.until_closed()

    async def use(link: Link) -> None:
        assert await asyncio.to_thread(stuck.wait, 20)
        assert sent[0] < 60_000 * total / 2
        for _ in range(total):
            frame = await link.receive()
            assert isinstance(frame, frames.DataFrame)
            assert len(frame.payload) == 60_000

    # Longer than the wait: a link that is not read from does not take the server for silent
    with_link(script, use, heartbeat_s=0.1)


def test_pings_of_a_server_that_does_not_read_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    written = 0
    write = Stream.write

    def counted(stream: Stream, data: bytes) -> None:
        nonlocal written
        written += len(data)
        write(stream, data)

    monkeypatch.setattr(Stream, "write", counted)
    read = threading.Event()

    def script(peer: scripted.Peer) -> None:
        peer.greet()
        for _ in range(150):
            peer.send(raw.frame(raw.PING, bytes(125), mask=None) * 1000)
        peer.say(type="pong", time=1)
        read.wait(20)

    async def use(link: Link) -> None:
        assert isinstance(await link.receive(), m.Pong)
        read.set()

    with_link(script, use)
    assert written < 12 << 20


def test_sending_waits_for_a_server_that_does_not_read() -> None:
    go_on = threading.Event()
    text = b"x" * (1 << 20)

    def script(peer: scripted.Peer) -> None:
        peer.greet()
        go_on.wait(20)
        for _ in range(64):
            assert peer.frame() == (raw.TEXT, text)
        peer.until_closed()

    async def use(link: Link) -> None:
        sending = asyncio.create_task(link.send_all([text] * 64))
        done, _ = await asyncio.wait([sending], timeout=0.2)
        assert not done
        go_on.set()
        await sending

    with_link(script, use)


def test_who_waits_to_send_is_told_of_the_end() -> None:
    leave = threading.Event()

    def script(peer: scripted.Peer) -> None:
        peer.greet()
        leave.wait(20)

    async def use(link: Link) -> None:
        sending = asyncio.create_task(link.send_all([b"x" * (1 << 20)] * 64))
        await asyncio.wait([sending], timeout=0.1)
        leave.set()
        await sending
        with pytest.raises(LinkClosed):
            await link.receive()

    with_link(script, use)


@pytest.mark.parametrize("option", ["a context", False])
async def test_over_tls(tmp_path: Path, option: object) -> None:
    cert, key = make_certificate(tmp_path)
    async with TestServer(tmp_path / "s", "--tls-cert", cert, "--tls-key", key) as server:
        with pytest.raises(ConnectFailed, match="certificate is not trusted"):
            await Link.open(server.url, server.token)
        trust = ssl.create_default_context(cafile=cert) if option else False
        link = await Link.open(server.url, server.token, ssl_option=trust)
        await link.send(encode(m.Ping()))
        assert isinstance(await link.receive(), m.Pong)
        await link.close()
