"""Requests over a connection that is kept: when it is dialled, when it is used again, and who may end it."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mhnos_runtime.client.discovery import Target
from mhnos_runtime.client.errors import ConnectFailed, ConnectionLost, RequestFailed
from mhnos_runtime.client.keepalive import KeepAlive
from mhnos_runtime.testing import TestServer
from tests.client.peer import Peer, Scripted, target
from tests.server.certificate import make_certificate

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"


def whole(connection: KeepAlive, route: str = "/", method: str = "GET") -> bytes:
    exchange, _ = connection.ask(method, route, {})
    return connection.whole(exchange, 100)


def test_a_race_with_a_server_that_hangs_up_is_lost_once() -> None:
    """It ends the connection when the request is under way: that was not answered, and is sent again."""

    def ending(peer: Peer) -> None:
        peer.head()
        peer.send(OK)
        peer.head()

    def answering(peer: Peer) -> None:
        peer.head()
        peer.send(OK)

    with Scripted(ending, answering) as server:
        connection = KeepAlive(target(server), 20)
        assert [whole(connection), whole(connection)] == [b"ab", b"ab"]
        connection.close()


def test_a_refusal_without_an_end_is_a_refusal_all_the_same() -> None:
    def endless(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 404 No\r\nContent-Length: 999999999\r\n\r\n" + bytes(200_000))

    def unframed(peer: Peer) -> None:
        peer.head()
        peer.send(b'HTTP/1.1 503 No\r\n\r\n{"error":"x"}')

    with Scripted(endless, unframed) as server:
        connection = KeepAlive(target(server), 20)
        with pytest.raises(RequestFailed, match="answered HTTP 404") as caught:
            whole(connection)
        assert (caught.value.code, caught.value.retry) == ("not-found", False)
        with pytest.raises(RequestFailed, match="answered HTTP 503") as caught:
            whole(connection)
        assert caught.value.retry
        connection.close()


def test_one_that_is_closed_asks_no_more() -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(OK)

    with Scripted(script) as server:
        connection = KeepAlive(target(server), 20)
        assert whole(connection) == b"ab"
        connection.close()
        assert connection.over
        for attempt in (lambda: whole(connection), lambda: connection.pause(60)):
            with pytest.raises(ConnectionLost, match="ended from here"):
                attempt()


def test_a_pause_ends_when_it_is_interrupted() -> None:
    with Scripted() as server:
        connection = KeepAlive(target(server), 20)
    connection.pause(0)
    thread = threading.Timer(0.01, connection.interrupt)
    thread.start()
    with pytest.raises(ConnectionLost, match="ended from here"):
        connection.pause(60)
    thread.join()


def test_a_source_that_gives_nothing_is_looked_at_before_the_request() -> None:
    """With a size of 0 the head is the whole request: nothing behind it could stop the server."""

    def source() -> Iterator[bytes]:
        yield b""
        raise OSError("gone")

    with Scripted() as server:
        connection = KeepAlive(target(server), 20)
        with pytest.raises(OSError, match="gone"):
            connection.ask("PUT", "/", {}, source(), 0)


async def test_over_tls(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path)
    async with TestServer(tmp_path / "s", "--tls-cert", cert, "--tls-key", key) as server:
        there = Target(server.url, server.token, "a test")
        with pytest.raises(ConnectFailed, match="certificate is not trusted"):
            await asyncio.to_thread(whole, KeepAlive(there, 20))
        for option in (False, ssl.create_default_context(cafile=cert)):
            connection = KeepAlive(there, 20, option)
            for _ in range(2):
                exchange, head = await asyncio.to_thread(connection.ask, "GET", "/health", {})
                assert head.status == 200
                assert await asyncio.to_thread(connection.whole, exchange, 1 << 20)
            connection.close()
