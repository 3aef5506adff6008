"""One life of a server, with a supervisor that the test plays: who ends it when, and what is left then."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.channel import ALIVE, OUTPUT, Channel, Message
from mhnos_runtime.launch import ProcessDescriptors
from mhnos_runtime.server.main import build
from mhnos_runtime.server.processes.link import SupervisorLink
from tests.server.processes.scene import Processes, descriptors, ended, facts, settings_and_hello, turns

PATIENCE = 20.0
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost:%d\r\n\r\n"
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost:%d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def until(said: Callable[[], Any]) -> Any:
    """What it says, once that is something."""
    end = time.monotonic() + PATIENCE
    while not (found := said()):
        assert time.monotonic() < end
        time.sleep(0.002)
    return found


class Life:
    """A server in a process of its own. listener: where its clients connect."""

    def __init__(self, folder: Path) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self._folder = folder
        self._log = folder / "server.log"
        ours, theirs = Channel.pair()
        self.supervisor = Channel(ours)
        with theirs, self._log.open("wb") as log:
            passed = (theirs.fileno(), self.listener.fileno())
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mhnos_runtime.server", str(theirs.fileno())],
                pass_fds=passed,
                stderr=log,
            )

    def hello(self, **other: Any) -> None:
        listeners = (self.listener.fileno(),)
        _settings, hello = settings_and_hello(self._folder, listeners=listeners, auth="none")
        self.supervisor.send({**hello.to_dict(), **other})

    def said(self) -> Message:
        message: Message = until(self.supervisor.receive)
        for fd in message.descriptors:
            os.close(fd)
        return message

    def serve(self) -> None:
        """Up to its first sign of life."""
        self.hello()
        self.supervisor.send({"event": "ready"})
        assert self.said().kind == ALIVE

    def client(self, request: bytes) -> socket.socket:
        """A connection on which a request, whose host has a gap for the port, is made."""
        sock = socket.create_connection(self.listener.getsockname())
        sock.settimeout(PATIENCE)
        sock.send(request % self.listener.getsockname()[1])
        return sock

    @property
    def log(self) -> str:
        return self._log.read_text()

    def ended(self) -> str:
        """What it has written by its end, which is one in order."""
        assert self.process.wait(PATIENCE) == 0, self.log
        return self.log

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.supervisor.close()
        self.listener.close()


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    made = Life(tmp_path)
    yield made
    made.close()


def test_a_supervisor_that_goes_before_its_hello(life: Life) -> None:
    life.supervisor.close()
    assert life.ended() == ""


def test_a_supervisor_of_another_version(life: Life) -> None:
    life.hello(version=0)
    assert life.process.wait(PATIENCE) == 1
    assert "version 0 of the channel" in life.log
    assert "mhnos-runtime reload" in life.log


def test_a_supervisor_that_goes_before_the_table_is_complete(life: Life) -> None:
    """The server opened its doors for a moment, to clients who would have found none of their processes."""
    life.hello()
    with life.client(HEALTH):
        life.supervisor.close()
        assert life.ended() == ""
        accepted, _ = life.listener.accept()
        with accepted:
            assert accepted.recv(1000).startswith(b"GET /health"), "it waits for the next server"


def test_a_server_that_is_told_to_end_before_the_table_is_complete(life: Life) -> None:
    life.hello()
    until(lambda: _catches(life.process.pid, signal.SIGTERM))
    life.process.send_signal(signal.SIGTERM)
    assert life.ended() == ""


def _catches(os_pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal (proc(5), SigCgt)."""
    [line] = [x for x in Path(f"/proc/{os_pid}/status").read_text().splitlines() if x.startswith("SigCgt")]
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


def test_a_server_that_is_told_to_end_lets_its_clients_go(life: Life) -> None:
    life.serve()
    with life.client(HEALTH) as client:
        assert client.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
        life.process.send_signal(signal.SIGTERM)
        assert client.recv(1) == b""
    assert "serving" in life.ended()


def masked(text: bytes) -> bytes:
    """A short frame of text, with a mask of zeros (RFC 6455, 5.2)."""
    return bytes((0x81, 0x80 | len(text))) + bytes(4) + text


def test_a_supervisor_that_goes_during_a_start(life: Life) -> None:
    life.serve()
    with life.client(UPGRADE) as client:
        client.send(masked(b'{"type":"spawn","processType":"shell","command":"true","id":1}'))
        while (message := life.said()).body.get("do") != "spawn":
            assert message.kind == ALIVE
        life.supervisor.close()
        seen = b""
        while part := client.recv(4096):
            seen += part
    assert b'"connected"' in seen
    assert "defect" not in life.ended()
    assert "Traceback" not in life.log


# What is built, and what is left at its end


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    made = Processes(tmp_path)
    yield made
    made.close()


async def test_at_its_end_nothing_is_open_and_nothing_rings(processes: Processes, tmp_path: Path) -> None:
    """Output of a process whose log was closed by then was a defect in the log of each busy server's end."""
    settings, hello = await asyncio.to_thread(settings_and_hello, tmp_path)
    loop = asyncio.get_running_loop()
    wrong: list[Any] = []
    loop.set_exception_handler(lambda _loop, context: wrong.append(context))
    ours, theirs = Channel.pair()
    supervisor, channel = Channel(ours), Channel(theirs)
    before = descriptors()
    link = SupervisorLink(channel, loop)
    domains = build(hello, settings, link, lambda: None)
    link.listen(domains.reports, bool)
    for pid in (1000, 1001):
        lingering = facts(linger_ms=1)
        record = processes.record(pid, facts=lingering.to_plain())
        domains.reports.on_process(record, ProcessDescriptors(processes.log(pid)), new=False)
    domains.reports.on_ready()
    domains.reports.on_exit(1001, ended(time.time_ns() // 1_000_000))
    supervisor.notify(OUTPUT, 1000)
    domains.close()
    await turns(20)
    assert (wrong, domains.table.active) == ([], 1)
    for pid in (1000, 1001):
        processes.writers.pop(pid).close()
    assert descriptors() == before
    for each in (supervisor, channel):
        each.close()
