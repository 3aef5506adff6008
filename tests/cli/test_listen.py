"""Where the runtime listens: on both addresses of loopback or not at all. A process with the machine's
network listened on [::1], and a client that asked for localhost showed it the token."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mhnos_runtime.cli import listen as module
from mhnos_runtime.cli.listen import LOOPBACK, addresses, listen
from mhnos_runtime.config import ConfigError
from mhnos_runtime.testing import TestServer


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@contextlib.contextmanager
def listening(host: str, port: int = 0) -> Iterator[list[socket.socket]]:
    opened = listen(host, port)
    try:
        yield opened
    finally:
        for sock in opened:
            sock.close()


@contextlib.contextmanager
def another(ip: str, port: int = 0, *, both_families: bool = False) -> Iterator[int]:
    """Somebody else who listens; yields the port."""
    with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ":" in ip:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not both_families))
        sock.bind((ip, port))
        sock.listen()
        yield sock.getsockname()[1]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", ["127.0.0.1", "::1"]),
        ("::1", ["::1", "127.0.0.1"]),
        ("localhost", ["127.0.0.1", "::1"]),
        ("desk.localhost", ["127.0.0.1", "::1"]),
        ("127.1.2.3", ["127.1.2.3", "127.0.0.1", "::1"]),
        ("0.0.0.0", ["0.0.0.0", "::1"]),
        ("::", ["::", "127.0.0.1"]),
        ("192.0.2.7", ["192.0.2.7"]),
        ("2001:db8::7", ["2001:db8::7"]),
    ],
)
def test_loopback_means_both_of_its_addresses(host: str, expected: list[str]) -> None:
    found = addresses(host)
    assert [each.ip for each in found] == expected
    assert [each.ip for each in found if each.needed] == ([] if "localhost" in host else expected[:1])


@ipv6
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "0.0.0.0", "::"])
@pytest.mark.parametrize("port", [0, 1])
def test_nobody_else_can_listen_where_localhost_leads(host: str, port: int) -> None:
    if port:
        with another("127.0.0.1") as port:
            pass
    with listening(host, port) as opened:
        number = opened[0].getsockname()[1]
        assert {sock.getsockname()[1] for sock in opened} == {number}
        assert not port or number == port
        for ip in (*LOOPBACK, "0.0.0.0", "::"):
            with pytest.raises(OSError, match="in use"), another(ip, number):
                pass
        with pytest.raises(OSError, match="in use"), another("::", number, both_families=True):
            pass
        for ip in LOOPBACK:
            with socket.create_connection((ip, number), 5):
                pass


@ipv6
@pytest.mark.parametrize("taken", ["127.0.0.1", "::1", "::"])
def test_a_taken_address_is_named_with_who_has_it(taken: str) -> None:
    with another(taken, both_families=True) as port, pytest.raises(ConfigError) as caught:
        listen("127.0.0.1", port)
    reported = "127.0.0.1" if taken == "::" else taken
    assert caught.value.message.startswith(
        f"cannot listen on {reported} port {port}: Address already in use by"
    )
    assert f"process {os.getpid()} (" in caught.value.message
    assert "--port" in caught.value.hint


def test_who_has_a_port_may_have_a_name_that_is_no_text() -> None:
    program = (
        "import socket; from pathlib import Path; Path('/proc/self/comm').write_bytes(b'odd\\xff');"
        "s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        with pytest.raises(ConfigError) as caught:
            listen("127.0.0.1", int(process.stdout.readline()))
        process.communicate("\n")
    assert f"by process {process.pid} (odd\ufffd)" in caught.value.message


@ipv6
def test_a_port_that_is_free_on_one_address_only_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel gives a port that is free on the first address; on the second it was somebody else's."""
    with another("::1") as busy, another("127.0.0.1") as free:
        pass
    with another("::1", busy):
        offered = iter([busy, busy, free])
        open_ = module._open

        def open_at(address: module.Address, port: int, opened: list[socket.socket]) -> None:
            open_(address, next(offered) if not opened else port, opened)

        monkeypatch.setattr(module, "_open", open_at)
        with listening("localhost") as opened:
            assert [sock.getsockname()[:2] for sock in opened] == [("127.0.0.1", free), ("::1", free)]


def test_where_all_ports_are_taken_the_last_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with another("127.0.0.1") as busy:
        monkeypatch.setattr(module, "LOOPBACK", ("127.0.0.1", "127.0.0.1"))
        open_ = module._open
        monkeypatch.setattr(
            module,
            "_open",
            lambda address, port, opened: open_(address, port if not opened else busy, opened),
        )
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1 port {busy}"):
            listen("localhost", 0)


def test_one_address_where_there_is_no_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """socket(2) says EAFNOSUPPORT without the family, and bind(2) EADDRNOTAVAIL without the address."""
    made = socket.socket

    def without(family: int, kind: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return made(family, kind)

    monkeypatch.setattr(socket, "socket", without)
    with listening("localhost") as opened:
        assert [sock.getsockname()[0] for sock in opened] == ["127.0.0.1"]
    with pytest.raises(ConfigError, match="cannot listen on ::1 port 0: Address family not supported"):
        listen("::1", 0)
    monkeypatch.undo()
    monkeypatch.setattr(module, "LOOPBACK", ("127.0.0.1", "2001:db8::1"))
    with listening("127.0.0.1") as opened:
        assert [sock.getsockname()[0] for sock in opened] == ["127.0.0.1"]


def test_an_address_of_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.7 port 0: Cannot assign"):
        listen("192.0.2.7", 0)
    monkeypatch.setattr(module, "LOOPBACK", ("192.0.2.7",))
    with pytest.raises(ConfigError, match="host 'localhost' is no address of this machine"):
        listen("localhost", 0)


def ask(ip: str, port: int, host: str) -> int:
    connection = http.client.HTTPConnection(ip, port, timeout=10)
    try:
        connection.request("GET", "/health", headers={"Host": host})
        return connection.getresponse().status
    finally:
        connection.close()


@ipv6
@pytest.mark.parametrize(
    ("flags", "start"),
    [
        ((), "http://127.0.0.1:"),
        (("--host", "localhost"), "http://127.0.0.1:"),
        (("--host", "::1"), "http://[::1]:"),
        (("--host", "::"), "http://[::1]:"),
    ],
)
async def test_a_server_answers_on_both_before_and_after_a_hand_over(
    tmp_path: Path, flags: tuple[str, ...], start: str
) -> None:
    async with TestServer(tmp_path, *flags) as server:
        assert server.url.startswith(start)
        port = int(server.url.rpartition(":")[2])
        assert f"  listening  {server.url}\n" in server.greeting
        for verb in (("health", "--wait", "30"), ("reload", "--wait", "50s")):
            command = [sys.executable, "-m", "mhnos_runtime", *verb, "--state-dir", str(server.state_dir)]
            done = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
            assert await done.wait() == 0
            for ip, name in (("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")):
                for host in (f"{name}:{port}", f"localhost:{port}"):
                    assert await asyncio.to_thread(ask, ip, port, host) == 200
                assert await asyncio.to_thread(ask, ip, port, f"evil.example:{port}") == 421
        assert json.loads((server.state_dir / "server.json").read_text())["url"] == server.url
