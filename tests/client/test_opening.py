"""The opening of a connection: what refuses it and in which words, and what a hostile server can do to it."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import pytest

from mhnos_runtime.client import link
from mhnos_runtime.client.direct import Direct
from mhnos_runtime.client.discovery import Target
from mhnos_runtime.client.errors import (
    ClientError,
    ConnectFailed,
    Forbidden,
    Unauthorized,
)
from mhnos_runtime.client.link import Link
from tests.client.peer import CONFIG, Peer, Scripted, target
from tests.server import raw


class Opens(Protocol):
    """Opens a connection and leaves it."""

    def __call__(self, there: Target, timeout_s: float = ...) -> None: ...


def opens_directly(there: Target, timeout_s: float = 20) -> None:
    Direct.open(there, timeout_s).close()


def opens_a_link(there: Target, timeout_s: float = 20) -> None:
    async def use() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(link, "CONNECT_TIMEOUT_S", timeout_s)
            await (await Link.open(there.url, there.token)).close()

    asyncio.run(use())


@pytest.fixture(params=[opens_directly, opens_a_link])
def opens(request: pytest.FixtureRequest) -> Opens:
    """Both kinds of connection: they are refused in the same words."""
    found: Opens = request.param
    return found


def answers(data: bytes, *, then_silent: bool = False) -> Any:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(data)
        if then_silent:
            peer.until_closed()

    return script


def problem(status: int, body: str, headers: str = "") -> bytes:
    return (
        f"HTTP/1.1 {status} No\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"{headers}\r\n{body}"
    ).encode()


REASON = '{"error":"Host not allowed: x","code":"some-code","hint":"use y"}'


@pytest.mark.parametrize(
    ("status", "error", "code", "hint"),
    [
        (401, Unauthorized, "unauthorized", "use y"),
        (403, Forbidden, "some-code", "use y"),
        (421, Forbidden, "forbidden-host", "use y"),
        (429, ConnectFailed, "connect-failed", "use y; try again in 7 s"),
        (503, ConnectFailed, "connect-failed", "use y; try again in 7 s"),
    ],
)
def test_a_refusal_has_the_words_of_the_server(
    opens: Opens, status: int, error: type[ClientError], code: str, hint: str
) -> None:
    with (
        Scripted(answers(problem(status, REASON, "Retry-After: 7\r\n"))) as server,
        pytest.raises(error, match="Host not allowed: x") as caught,
    ):
        opens(target(server))
    assert (caught.value.code, caught.value.hint) == (code, hint)


@pytest.mark.parametrize(
    "answer",
    [
        problem(401, REASON)[:-9],
        problem(401, REASON[:-9]),
        problem(401, "[1]"),
        problem(401, '{"error": 7}'),
        b"HTTP/1.1 401 No\r\n\r\n",
        b"HTTP/1.1 401 No\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_a_refusal_whose_reason_is_none_is_one_all_the_same(opens: Opens, answer: bytes) -> None:
    with (
        Scripted(answers(answer)) as server,
        pytest.raises(Unauthorized, match="refused the token") as caught,
    ):
        opens(target(server))
    assert "mhnos-runtime token" in caught.value.hint


def test_a_reason_that_does_not_come_is_not_waited_for_beyond_the_time(opens: Opens) -> None:
    with Scripted(answers(problem(403, REASON)[:-3], then_silent=True)) as server, pytest.raises(Forbidden):
        opens(target(server), 0.1)


@pytest.mark.parametrize(
    ("answer", "text", "retry"),
    [
        (b"", "closed the connection", True),
        (b"HTTP/1.1 101 Switch", "closed the connection", True),
        (b"SSH-2.0-OpenSSH_9\r\n", "is not HTTP", False),
        (b"HTTP/2 200\r\n\r\n", "is not HTTP", False),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", "answered HTTP 200", False),
        (b"HTTP/1.1 101 S\r\nUpgrade: h2c\r\n\r\n", "upgrades to no WebSocket", False),
        (b"HTTP/1.1 101 S\r\nX: " + bytes(1 << 17), "more than 65536 bytes", False),
        (b"HTTP/1.1 100 C\r\n\r\n" * 5000, "more than 65536 bytes", False),
    ],
)
def test_what_is_no_handshake(opens: Opens, answer: bytes, text: str, retry: bool) -> None:
    with Scripted(answers(answer)) as server, pytest.raises(ConnectFailed, match=text) as caught:
        opens(target(server))
    assert caught.value.retry is retry


@pytest.mark.parametrize(
    "changes",
    [
        {"Sec_WebSocket_Accept": "AAAAAAAAAAAAAAAAAAAAAAAAAAA="},
        {"Sec_WebSocket_Accept": None},
        {"Connection": "keep-alive"},
        {"Upgrade": None},
        {"Sec_WebSocket_Protocol": "chat"},
        {"Sec_WebSocket_Extensions": "permessage-deflate"},
    ],
)
def test_a_handshake_that_is_wrong(opens: Opens, changes: dict[str, str | None]) -> None:
    with (
        Scripted(lambda peer: peer.accept(**changes)) as server,
        pytest.raises(ConnectFailed, match="cannot connect") as caught,
    ):
        opens(target(server))
    assert not caught.value.retry


def test_a_server_of_protocol_1_0(opens: Opens) -> None:
    def script(peer: Peer) -> None:
        peer.accept(Sec_WebSocket_Protocol=None)
        peer.say(type="connected", protocolVersion="1.0.0", config=CONFIG)
        peer.until_closed()

    with Scripted(script) as server, pytest.raises(ConnectFailed, match="speaks only protocol 1") as caught:
        opens(target(server))
    assert not caught.value.retry


@pytest.mark.parametrize(
    ("frame", "retry"),
    [
        (raw.frame(raw.TEXT, b'{"type":"pong","time":1}', mask=None), False),
        (raw.frame(raw.BINARY, b"x", mask=None), False),
        (raw.frame(raw.CLOSE, mask=None), True),
        (b"", True),
    ],
)
def test_what_does_not_greet(opens: Opens, frame: bytes, retry: bool) -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.send(frame)

    with Scripted(script) as server, pytest.raises(ConnectFailed, match="did not greet") as caught:
        opens(target(server))
    assert caught.value.retry is retry


@pytest.mark.parametrize("silent_after", [lambda peer: None, lambda peer: peer.accept()])
def test_silence_at_the_beginning(opens: Opens, silent_after: Any) -> None:
    def quiet(peer: Peer) -> None:
        silent_after(peer)
        while peer.connection.recv(1 << 16):
            pass

    with Scripted(quiet) as server, pytest.raises(ConnectFailed, match=r"did not answer within 0\.1 s"):
        opens(target(server), 0.1)


def test_nobody_there(opens: Opens) -> None:
    with Scripted() as server:
        pass
    with pytest.raises(ConnectFailed, match="Connection refused") as caught:
        opens(target(server))
    assert "mhnos-runtime serve" in caught.value.hint


def test_a_name_that_nobody_knows(opens: Opens) -> None:
    with pytest.raises(ConnectFailed, match="cannot connect"):
        opens(Target("http://nobody.invalid:1", None, "a test"))


@pytest.mark.parametrize("token", ["a\r\nX-Evil: 1", "a\nb", "é\u0101"])
def test_a_token_that_no_header_holds(opens: Opens, token: str) -> None:
    with Scripted() as server, pytest.raises(ConnectFailed, match="characters that no token has") as caught:
        opens(target(server, token))
    assert "Evil" not in caught.value.message
