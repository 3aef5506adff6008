"""Sockets and numbers for processes, on real ports of loopback."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import pytest

from mhnos_runtime.errors import InvalidRequest, LimitReached, StartFailed
from mhnos_runtime.launch import FIRST_HANDED
from mhnos_runtime.server.processes import ports
from mhnos_runtime.server.processes.ports import FIRST_PORT, MOST, Handed, check_names, free, listen
from tests.server.processes.scene import descriptors, is_open


def test_what_is_handed_over_is_numbered_and_closed_once() -> None:
    handed, pipe = Handed(), os.pipe()
    assert [handed.add(fd) for fd in pipe] == [FIRST_HANDED, FIRST_HANDED + 1]
    os.close(pipe[0])
    handed.close()
    assert not any(map(is_open, pipe))
    reused = os.pipe()
    handed.close()
    assert all(map(is_open, reused)), "the numbers are another's by now"
    for fd in reused:
        os.close(fd)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, ""),
        ({"http": 0, "a.b_c-1": FIRST_PORT, "z": 65535}, ""),
        ({"": 0}, "not a name"),
        ({"a b": 0}, "not a name"),
        ({"a\n": 0}, "not a name"),
        ({"x" * 65: 0}, "not a name"),
        ({"http": -1}, "expected 0"),
        ({"http": FIRST_PORT - 1}, "expected 0"),
        ({"http": 65536}, "expected 0"),
        ({str(number): 0 for number in range(MOST)}, ""),
        ({str(number): 0 for number in range(MOST + 1)}, "too many"),
    ],
)
def test_names_and_numbers(asked: dict[str, int], said: str) -> None:
    if not said:
        check_names(asked)
        return
    with pytest.raises(InvalidRequest, match=said):
        check_names(asked)


def test_a_socket_listens_before_anybody_accepts() -> None:
    with listen(0) as sock, socket.create_connection(sock.getsockname()):
        assert sock.getsockname()[0] == "127.0.0.1"
        assert not sock.get_inheritable()


def test_a_number_that_is_asked_for_is_given() -> None:
    with socket.socket() as reserved:
        # Nobody else is given the number, and who asks for it by number has it: nobody listens.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        number = reserved.getsockname()[1]
        assert free(number) == number
        with listen(number) as sock:
            assert sock.getsockname()[1] == number


def test_any_port_will_do_where_none_is_asked_for() -> None:
    assert FIRST_PORT <= free(0) < 65536


def test_a_port_is_free_whatever_is_left_of_earlier_connections() -> None:
    """Connections that the server's side closed first are kept for a minute (TIME_WAIT)."""
    with listen(0) as sock:
        number = sock.getsockname()[1]
        with socket.create_connection(sock.getsockname()) as client:
            accepted, _ = sock.accept()
            accepted.close()
            assert client.recv(1) == b""
    assert free(number) == number
    listen(number).close()


@pytest.mark.parametrize("ask", [listen, free])
def test_a_port_in_use_is_refused_and_nothing_stays_open(ask: Any) -> None:
    with listen(0) as sock:
        before = descriptors()
        with pytest.raises(StartFailed) as refused:
            ask(sock.getsockname()[1])
        assert (refused.value.code, descriptors()) == ("port-in-use", before)


@pytest.mark.parametrize("ask", [listen, free])
def test_an_address_that_this_machine_does_not_have(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where loopback is down."""
    monkeypatch.setattr(ports, "LOOPBACK", "192.0.2.1")
    before = descriptors()
    with pytest.raises(StartFailed, match="cannot be had") as refused:
        ask(0)
    assert (refused.value.code, descriptors()) == ("start-failed", before)


@pytest.mark.parametrize("ask", [listen, free])
def test_without_descriptors_there_is_no_socket(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socket", none_left)
    with pytest.raises(LimitReached, match="Too many open files") as refused:
        ask(0)
    assert (refused.value.code, refused.value.retry) == ("start-failed", True)
