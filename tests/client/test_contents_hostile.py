"""Servers that lie about files: what they say is refused, and costs nothing."""

from __future__ import annotations

import collections
import io
import itertools
import threading
from collections.abc import Callable

import pytest

from mhnos_runtime.client import exchange
from mhnos_runtime.client.contents import ArchiveWritten, Contents
from mhnos_runtime.client.errors import (
    ConnectFailed,
    ConnectionLost,
    ProtocolViolation,
    RequestFailed,
)
from tests.client.content_server import ContentServer
from tests.client.peer import Peer, Scripted, answered, target

ETAG = f'ETag: "{"0" * 24}"\r\n'.encode()


OK = b"HTTP/1.1 200 OK\r\n" + ETAG
PART = b"HTTP/1.1 206 Part\r\n" + ETAG
LIES = [
    (OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", 0, "how large"),
    (OK + b"\r\nuntil the end", 0, "how large"),
    (OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx", 0, "Content-Length"),
    (OK + b"Content-Length: -1\r\n\r\nx", 0, "Content-Length"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", 0, "which version"),
    (b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: 1\r\n\r\nx', 0, "which version"),
    (OK + b"Content-Length: 5\r\n\r\n01234", 3, "begins at byte 0"),
    (PART + b"Content-Range: bytes 2-4/5\r\nContent-Length: 3\r\n\r\n234", 3, "not what follows"),
    (PART + b"Content-Range: bytes 3-3/5\r\nContent-Length: 1\r\n\r\n3", 3, "not what follows"),
    (PART + b"Content-Range: bytes 3-4/5\r\nContent-Length: 1\r\n\r\n3", 3, "not what follows"),
    (PART + b"Content-Length: 2\r\n\r\n34", 3, "not what follows"),
    (PART + b"Content-Range: bytes 3-4/*\r\nContent-Length: 2\r\n\r\n34", 3, "not what follows"),
    (b"HTTP/1.1 200 OK\r\nX: " + bytes(1 << 17), 0, "head"),
    (b"HTTP/1.1 102 P\r\n\r\n" * 5000, 0, "head"),
    (b"SSH-2.0-x\r\n", 0, "not HTTP"),
]


@pytest.mark.parametrize(("answer", "start", "text"), LIES)
def test_an_answer_that_is_none_is_a_violation(answer: bytes, start: int, text: str) -> None:
    with (
        answered(answer) as server,
        Contents(target(server)) as contents,
        pytest.raises(ProtocolViolation, match=text),
    ):
        contents.read("/a", start=start)


@pytest.mark.parametrize(
    "answer",
    [b"", OK + b"Content-Length: 5\r\n\r\n0123", OK],
)
def test_an_answer_that_ends_too_early_is_a_lost_connection(answer: bytes) -> None:
    with (
        answered(answer) as server,
        Contents(target(server)) as contents,
        pytest.raises(ConnectionLost),
        contents.read("/a") as read,
    ):
        list(read)


def test_what_follows_an_answer_is_not_taken_for_the_next_one() -> None:
    more = OK + b"Content-Length: 4\r\n\r\nevil"
    with (
        answered(
            OK + b"Content-Length: 4\r\n\r\ngood" + more, OK + b"Content-Length: 4\r\n\r\ngood"
        ) as server,
        Contents(target(server)) as contents,
    ):
        for _ in range(2):
            with contents.read("/a") as read:
                assert b"".join(read) == b"good"


@pytest.mark.parametrize("size", [b"40000000", b"ffffffffffffffff"])
def test_a_huge_chunk_takes_no_memory_before_it_comes(size: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with (
        answered(head + size + b"\r\n" + bytes(1000)) as server,
        Contents(target(server)) as contents,
        contents.read_archive("/a") as archive,
        pytest.raises(ConnectionLost),
    ):
        assert max(map(len, archive)) <= exchange.READ_BYTES


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"file":{"path":1}}', b"[" * 100_000, b""])
def test_an_answer_to_a_write_that_is_not_understood(body: bytes) -> None:
    head = b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n" % len(body)
    answer = b"HTTP/1.1 100 Continue\r\n\r\n"

    def script(peer: Peer) -> None:
        peer.head()
        peer.send(answer)
        peer._take(1)
        peer.send(head + body)

    with (
        Scripted(script) as server,
        Contents(target(server)) as contents,
        pytest.raises(ProtocolViolation),
    ):
        contents.write("/a", [b"x"], size=1)


def test_an_endless_answer_to_a_write() -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        peer._take(1)
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
        with pytest.raises(ConnectionError):
            collections.deque(map(peer.send, itertools.repeat(chunk)), maxlen=0)

    with (
        Scripted(script) as server,
        Contents(target(server)) as contents,
        pytest.raises(ProtocolViolation, match="more than"),
    ):
        contents.write("/a", [b"x"], size=1)


def test_success_before_all_was_sent_is_none() -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}")
        peer.connection.recv(1)

    with (
        Scripted(script) as server,
        Contents(target(server)) as contents,
        pytest.raises(ProtocolViolation, match="not got all"),
    ):
        contents.write("/a", [bytes(1 << 20)] * 50)


def test_a_server_that_falls_silent_is_left() -> None:
    over = threading.Event()

    def script(peer: Peer) -> None:
        peer.head()
        peer.send(OK + b"Content-Length: 5\r\n\r\n012")
        over.wait(20)

    with Scripted(script) as server, Contents(target(server), timeout_s=0.2) as contents:
        with pytest.raises(ConnectionLost, match="silent"), contents.read("/a") as read:
            list(read)
        over.set()


def test_a_server_that_never_says_go_on_gets_the_body_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "CONTINUE_S", 0.01)

    def script(peer: Peer) -> None:
        head = peer.head()
        assert "Expect: 100-continue" in head
        assert peer._take(5) == b"hello"
        body = b'{"written":1,"bytes":5}'
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    with Scripted(script) as server, Contents(target(server)) as contents:
        head_and_body = contents._put("/v1/files/a", {}, [b"hello"], 5, ArchiveWritten)
        assert head_and_body == ArchiveWritten(1, 5)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["read", "write", "upload"])
def test_a_redirection_takes_the_token_nowhere(server: ContentServer, status: int, method: str) -> None:
    moved = b"HTTP/1.1 %d Moved\r\nLocation: %b/v1/files/a\r\nContent-Length: 0\r\n\r\n"
    with (
        answered(moved % (status, server.target.url.encode())) as mover,
        Contents(target(mover, token="t" * 43)) as contents,
    ):
        work: dict[str, Callable[[], object]] = {
            "read": lambda: contents.read("/a"),
            "write": lambda: contents.write("/a", [b"x"]),
            "upload": lambda: contents.upload("/a", io.BytesIO(b"x"), size=1),
        }
        with pytest.raises(RequestFailed, match=f"answered HTTP {status}"):
            work[method]()
    assert server.lines == []


def test_a_token_of_two_lines_is_no_header(server: ContentServer) -> None:
    with (
        Contents(server.target._replace(token="a\r\nX-Evil: 1")) as contents,
        pytest.raises(ConnectFailed, match="control character") as caught,
    ):
        contents.read("/a")
    assert not caught.value.retry
    assert server.lines == []


def test_nobody_there(server: ContentServer) -> None:
    with answered() as nobody:
        pass
    with Contents(target(nobody)) as contents, pytest.raises(ConnectFailed):
        contents.download("/a", io.BytesIO())
    with pytest.raises(ConnectFailed):
        Contents(target(nobody)._replace(url="ftp://x"))
