"""Blocking connections: which address is taken, in how much time, and the words for what goes wrong."""

from __future__ import annotations

import socket
import ssl
import time

import pytest

from mhnos_runtime.client.address import parse
from mhnos_runtime.client.dial import context, dial, failed, left, reason


def resolves_to(monkeypatch: pytest.MonkeyPatch, *places: tuple[str, int]) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: found)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_the_next_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        resolves_to(monkeypatch, ("127.0.0.1", closed_port()), listener.getsockname())
        with dial(parse("http://desk"), time.monotonic() + 20) as connection:
            assert connection.getpeername() == listener.getsockname()


def test_an_address_that_does_not_answer_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener whose queue is full: the kernel drops what comes then."""
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    with socket.create_server(("127.0.0.1", 0)) as listener, full:
        waiting = [socket.socket() for _ in range(3)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        resolves_to(monkeypatch, full.getsockname(), listener.getsockname())
        with dial(parse("http://desk"), time.monotonic() + 4) as connection:
            assert connection.getpeername() == listener.getsockname()
        for each in waiting:
            each.close()


def test_the_last_error_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    resolves_to(monkeypatch, ("127.0.0.1", closed_port()), ("127.0.0.1", closed_port()))
    with pytest.raises(ConnectionRefusedError):
        dial(parse("http://desk"), time.monotonic() + 20)


def test_no_time_is_left() -> None:
    with pytest.raises(TimeoutError):
        left(time.monotonic())


def test_a_server_that_is_silent_about_tls() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        there = parse(f"https://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(TimeoutError):
            dial(there, time.monotonic() + 0.2)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 1)"), "Connection refused"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (
            OSError("Multiple exceptions: [Errno 111] Connect, [Errno 101] x"),
            "Connection refused",
        ),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), "wrong version number"),
        (OSError(), "OSError"),
    ],
)
def test_words(error: OSError, text: str) -> None:
    assert text in reason(error)
    found = failed("http://desk", error)
    assert text in found.message
    assert "mhnos-runtime serve" in found.hint


def test_what_tls_is_done_with() -> None:
    own = ssl.create_default_context()
    assert context(own) is own
    assert context(True).verify_mode is ssl.CERT_REQUIRED
    assert context(True) is context(True)
    assert context(False).verify_mode is ssl.CERT_NONE
