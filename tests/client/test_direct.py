"""The blocking connection: what it asks and receives, how it ends, and what a hostile server can do to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.client import direct as subject
from mhnos_runtime.client.direct import Direct
from mhnos_runtime.client.discovery import Target
from mhnos_runtime.client.errors import (
    ClientError,
    ConnectFailed,
    ConnectionLost,
    ProtocolViolation,
    RequestFailed,
    RequestTimedOut,
    Unauthorized,
)
from mhnos_runtime.testing import TestServer
from mhnos_runtime.wire import frames
from mhnos_runtime.wire import messages as m
from tests.client.peer import CONFIG, PATIENCE_S, Peer, Scripted, dial, target
from tests.server import raw
from tests.server.certificate import make_certificate

PONG: dict[str, Any] = {"type": "pong", "time": 1}


# Requests


async def test_a_real_server_answers(tmp_path: Path) -> None:
    async with TestServer(tmp_path) as server:

        def use() -> None:
            with Direct.open(Target(server.url, server.token, "a test")) as runtime:
                assert runtime.hello.protocol == "1.1"
                spawned = runtime.ask(m.Spawn("shell", "echo hello; sleep 60"), m.Spawned)
                rows = runtime.ask(m.List(), m.ProcessList).processes
                assert [row.pid for row in rows] == [spawned.pid]
                runtime.ask(m.Kill(spawned.pid, "SIGKILL"), m.Killed)
                with pytest.raises(RequestFailed) as caught:
                    runtime.ask(m.Attach(7), m.Attached)
                assert caught.value.code == "unknown-process"
                seen = []
                while not isinstance(got := runtime.receive(20), m.Exit):
                    seen.append(got)
                assert got.signal == "SIGKILL"

        await asyncio.to_thread(use)


async def test_over_tls_with_a_certificate_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = make_certificate(tmp_path)
    async with TestServer(tmp_path / "s", "--tls-cert", cert, "--tls-key", key) as server:
        there = Target(server.url, server.token, "a test")
        with pytest.raises(ConnectFailed, match="certificate is not trusted") as caught:
            await asyncio.to_thread(Direct.open, there)
        assert "SSL_CERT_FILE" in caught.value.hint
        monkeypatch.setenv("SSL_CERT_FILE", cert)

        def use() -> None:
            with Direct.open(there) as runtime:
                assert isinstance(runtime.ask(m.Ping(), m.Pong), m.Pong)

        await asyncio.to_thread(use)


def test_what_is_sent_to_open_it() -> None:
    heads = []

    def script(peer: Peer) -> None:
        heads.append(peer.accept())
        peer.say(type="connected", protocolVersion="1.0.0", config=CONFIG)
        peer.until_closed()

    with Scripted(script) as server, Direct.open(target(server, "secret", "/user/ann b/")):
        pass
    lines = heads[0].split("\r\n")
    assert lines[0] == "GET /user/ann%20b/ HTTP/1.1"
    assert {f"Host: {server.url.partition('//')[2]}", "Authorization: Bearer secret"} < set(lines)
    assert f"Sec-WebSocket-Protocol: {m.SUBPROTOCOL}" in lines


def test_events_that_come_before_an_answer_are_kept_and_newer_ones_passed_over() -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        asked = peer.request()
        peer.say(type="gap", pid=1, to=2, **{"from": 0})
        peer.say(type="fromTheFuture")
        peer.send_frame(raw.BINARY, frames.pack_header(frames.STDOUT, 0, 1, 2) + b"ab")
        peer.say(**PONG, id=asked["id"])
        peer.say(type="fromTheFuture")
        peer.say(type="gap", pid=1, to=9, **{"from": 4})
        peer.until_closed()

    with Scripted(script) as server, dial(server) as runtime:
        assert runtime.ask(m.Ping(), m.Pong).time == 1
        assert runtime.receive() == m.Gap(1, 0, 2)
        frame = runtime.receive()
        assert isinstance(frame, frames.DataFrame)
        assert bytes(frame.payload) == b"ab"
        assert runtime.receive() == m.Gap(1, 4, 9)
        with pytest.raises(RequestTimedOut, match="nothing came"):
            runtime.receive(0.01)


def test_an_error_has_the_servers_words() -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.say(type="error", id=peer.request()["id"], error="no", code="still-running", hint="end it")
        peer.until_closed()

    with Scripted(script) as server, dial(server) as runtime:
        with pytest.raises(RequestFailed, match="no") as caught:
            runtime.ask(m.Ping(), m.Pong)
        assert (caught.value.code, caught.value.hint) == ("still-running", "end it")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"type": "killed", "pid": 1}, "ping was answered by killed"),
        ({"type": "fromTheFuture"}, "was not understood"),
    ],
)
def test_another_answer_is_a_violation(answer: dict[str, Any], text: str) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.say(**answer, id=peer.request()["id"])
        peer.until_closed()

    with Scripted(script) as server, dial(server) as runtime, pytest.raises(ProtocolViolation, match=text):
        runtime.ask(m.Ping(), m.Pong)


def test_no_answer_in_time() -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.until_closed()

    with (
        Scripted(script) as server,
        dial(server) as runtime,
        pytest.raises(RequestTimedOut, match="no answer to ping"),
    ):
        runtime.ask(m.Ping(), m.Pong, timeout_s=0.05)


def test_what_never_ends_is_no_answer_either() -> None:
    """Pings that come faster than they are answered must not keep a request beyond its time."""
    stop = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        peer.connection.setblocking(False)
        ping = raw.frame(raw.PONG, b"x", mask=None) * 1000
        while not stop.is_set():
            try:
                peer.connection.send(ping)
            except BlockingIOError:
                continue
            except OSError:
                return

    with Scripted(script) as server, dial(server) as runtime:
        with pytest.raises(RequestTimedOut):
            runtime.ask(m.Ping(), m.Pong, timeout_s=0.1)
        stop.set()


def test_a_message_in_fragments_and_of_many_megabytes() -> None:
    big = json.dumps({**PONG, "id": 1, "padding": "é" * (3 << 20)}, ensure_ascii=False).encode()

    def script(peer: Peer) -> None:
        peer.greet()
        assert peer.request()["id"] == 1
        peer.send_frame(raw.TEXT, big[: 1 << 20], final=False)
        peer.send_frame(raw.PING, b"between")
        peer.send_frame(raw.CONTINUATION, big[1 << 20 :])
        assert peer.frame() == (raw.PONG, b"between")
        peer.until_closed()

    with Scripted(script) as server, dial(server) as runtime:
        assert runtime.ask(m.Ping(), m.Pong).time == 1


def test_a_large_request_is_masked_as_a_whole() -> None:
    text = "0123456789" * 300_000

    def script(peer: Peer) -> None:
        peer.greet()
        assert peer.request()["data"] == text
        assert peer.frame() == (raw.BINARY, b"frame")
        peer.until_closed()

    with Scripted(script) as server, dial(server) as runtime:
        runtime.send(m.Write(1, text))
        runtime.send_frame(b"frame")


# Its end


def test_it_says_goodbye_and_waits_until_it_is_heard() -> None:
    said: list[tuple[int, bytes]] = []

    def script(peer: Peer) -> None:
        peer.greet()
        said.append(peer.frame())
        peer.say(type="gap", pid=1, to=9, **{"from": 4})
        peer.send_frame(raw.CLOSE, b"\x03\xe8")
        said.extend(peer.until_closed())

    with Scripted(script) as server:
        runtime = dial(server)
        runtime.close()
        runtime.close()
        with pytest.raises(ConnectionLost, match="closed"):
            runtime.ask(m.Ping(), m.Pong)
    assert said[0] == (raw.CLOSE, b"\x03\xe8")


def test_a_goodbye_that_nobody_answers_ends_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "CLOSE_TIMEOUT_S", 0.05)

    def script(peer: Peer) -> None:
        peer.greet()
        assert peer.until_closed(polite=False)[0][0] == raw.CLOSE

    with Scripted(script) as server, dial(server):
        pass


def test_a_goodbye_is_not_waited_for_behind_messages_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "CLOSE_TIMEOUT_S", 0.05)

    def script(peer: Peer) -> None:
        peer.greet()
        unknown = raw.frame(raw.TEXT, b'{"type":"of a later version"}', mask=None)
        until = time.monotonic() + PATIENCE_S
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < until:
                peer.send(unknown * 1000)
            pytest.fail("it has not left")

    with Scripted(script) as server, dial(server):
        pass


def test_a_server_that_pings_and_does_not_read_is_left_in_time() -> None:
    """What it is answered fills the connection."""

    def script(peer: Peer) -> None:
        peer.greet()
        with contextlib.suppress(ConnectionError):
            while True:
                peer.send(raw.frame(raw.PING, bytes(125), mask=None) * 1000)

    with Scripted(script) as server, dial(server) as runtime:
        began = time.monotonic()
        with pytest.raises((ConnectionLost, RequestTimedOut)):
            runtime.ask(m.Ping(), m.Pong, timeout_s=0.5)
        assert time.monotonic() - began < subject.REQUEST_TIMEOUT_S / 2


@pytest.mark.parametrize(
    ("payload", "error", "text"),
    [
        (b"\x03\xe8", ConnectionLost, "closed"),
        (b"", ConnectionLost, "without a code"),
        (b"\x03\xf0", Unauthorized, "revoked or has expired"),
    ],
)
def test_a_server_that_closes(payload: bytes, error: type[ClientError], text: str) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.send_frame(raw.CLOSE, payload)
        assert peer.until_closed()[0][0] == raw.CLOSE

    with Scripted(script) as server, dial(server) as runtime:
        for _ in range(2):
            with pytest.raises(error, match=text):
                runtime.receive()


def test_a_server_that_has_gone() -> None:
    with Scripted(Peer.greet) as server, dial(server) as runtime:
        with pytest.raises(ConnectionLost, match="was lost"):
            runtime.receive()
        with pytest.raises(ConnectionLost, match="was lost"):
            runtime.send(m.Ping())


def test_a_connection_that_is_reset() -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.request()
        peer.connection.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER: close() resets

    with (
        Scripted(script) as server,
        dial(server) as runtime,
        pytest.raises(ConnectionLost, match="reset by peer"),
    ):
        runtime.ask(m.Ping(), m.Pong)


def test_silence_is_asked_about_and_then_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "HEARTBEAT_S", 0.05)
    seen: list[tuple[int, bytes]] = []

    def script(peer: Peer) -> None:
        peer.greet()
        seen.append(peer.frame())
        peer.send_frame(raw.PONG)
        seen.extend(peer.until_closed())

    with (
        Scripted(script) as server,
        dial(server) as runtime,
        pytest.raises(ConnectionLost, match="has fallen silent"),
    ):
        runtime.receive()
    assert {opcode for opcode, _ in seen} == {raw.PING}


def test_events_without_an_answer_are_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "MAX_HELD_BYTES", 1 << 20)

    def script(peer: Peer) -> None:
        peer.greet()
        gap = raw.frame(raw.TEXT, b'{"type":"gap","pid":1,"from":0,"to":1}', mask=None)
        try:
            while True:
                peer.send(gap * 100)
        except OSError:
            pass

    with (
        Scripted(script) as server,
        dial(server) as runtime,
        pytest.raises(ProtocolViolation, match="and no answer"),
    ):
        runtime.ask(m.Ping(), m.Pong)
