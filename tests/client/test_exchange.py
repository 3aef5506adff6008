"""One connection for many requests: what is sent and heard on it, and when it can be used again."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from mhnos_runtime.client import exchange as module
from mhnos_runtime.client.address import parse
from mhnos_runtime.client.exchange import Exchange, Stale
from mhnos_runtime.wire.http import BadAnswer
from tests.client.peer import Peer, Scripted

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
PUT = b"PUT / HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"


def opened(server: Scripted) -> Exchange:
    return Exchange(parse(server.url), 20.0)


def answering(*answers: bytes) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        for answer in answers:
            peer.head()
            peer.send(answer)

    return script


def test_one_request_after_the_other() -> None:
    with Scripted(answering(OK, OK)) as server:
        exchange = opened(server)
        for _ in range(2):
            exchange.begin(HEAD)
            assert exchange.head().status == 200
            assert exchange.length == 2
            assert b"".join(exchange.body()) == b"ab"
            assert exchange.reusable
        exchange.close()


@pytest.mark.parametrize(
    "answer",
    [OK + b"more", OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n")],
)
def test_one_that_cannot_be_used_again(answer: bytes) -> None:
    with Scripted(answering(answer)) as server:
        exchange = opened(server)
        exchange.begin(HEAD)
        exchange.head()
        assert not exchange.reusable or answer.endswith(b"more")
        assert list(exchange.body()) == [b"ab"]
        assert not exchange.reusable
        exchange.close()


def test_a_body_whose_end_nobody_tells_is_refused() -> None:
    with Scripted(answering(b"HTTP/1.1 200 OK\r\n\r\nab")) as server:
        exchange = opened(server)
        exchange.begin(HEAD)
        exchange.head()
        with pytest.raises(BadAnswer, match="no length"):
            next(exchange.body())
        exchange.close()


@pytest.mark.parametrize("begins_with_a_body", [False, True])
def test_one_that_ended_between_requests_is_stale(begins_with_a_body: bool) -> None:
    """The request was not carried out, so that it can be sent again elsewhere."""
    with Scripted(answering(OK)) as server:
        exchange = opened(server)
        exchange.begin(HEAD)
        assert exchange.head().status == 200
        assert list(exchange.body()) == [b"ab"]
    with pytest.raises(Stale):
        _ask(exchange, begins_with_a_body)
    exchange.close()


def _ask(exchange: Exchange, with_a_body: bool) -> None:
    exchange.begin(PUT if with_a_body else HEAD, expects=with_a_body)
    exchange.head()


def test_a_first_request_is_never_stale() -> None:
    with Scripted(answering(b"")) as server:
        exchange = opened(server)
        exchange.begin(HEAD)
        with pytest.raises(ConnectionError):
            exchange.head()
        exchange.close()


def test_after_some_of_a_body_it_is_not_stale() -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(OK)
        peer.head()
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        peer._take(2)

    with Scripted(script) as server:
        exchange = opened(server)
        exchange.begin(HEAD)
        exchange.head()
        assert list(exchange.body()) == [b"ab"]
        exchange.begin(PUT, expects=True)
        with pytest.raises(ConnectionError):
            _send(exchange, [b"ab"])
        exchange.close()


def _send(exchange: Exchange, pieces: list[bytes]) -> None:
    exchange.send(pieces, chunked=False)
    exchange.head()


def test_pieces_go_in_chunks() -> None:
    seen = []

    def script(peer: Peer) -> None:
        peer.head()
        seen.append(peer._take(15))
        peer.send(OK)

    with Scripted(script) as server:
        exchange = opened(server)
        exchange.begin(PUT)
        exchange.send([b"", b"abc", b"", b"d"], chunked=True)
        assert exchange.head().status == 200
        assert not exchange.cut
        exchange.close()
    assert seen == [b"3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"[:15]]


def test_a_connection_that_takes_nothing_is_left_after_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.01)

    def script(peer: Peer) -> None:
        peer.head()
        peer.connection.settimeout(20)
        while peer.connection.recv(1 << 16, 2) and not over:  # MSG_PEEK: nothing is taken
            time.sleep(0.01)

    over: list[bool] = []
    with Scripted(script) as server:
        exchange = Exchange(parse(server.url), 0.2)
        exchange.begin(PUT)
        with pytest.raises(TimeoutError):
            exchange.send([bytes(1 << 20)] * 100, chunked=False)
        over.append(True)
        exchange.close()
