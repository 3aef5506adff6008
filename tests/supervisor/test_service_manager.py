"""What a service manager is told: a real supervisor, and the test on the other end of NOTIFY_SOCKET."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from mhnos_runtime.channel import ALIVE
from mhnos_runtime.supervisor.loop import Loop
from mhnos_runtime.supervisor.service_manager import ServiceManager
from tests.supervisor.harness import Server, Supervised, supervised

DEADLINE_SECONDS = 20.0


class Manager:
    """The receiving end: takes messages, each as its lines."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.address = address

    def next(self, *, but: str = "WATCHDOG=1") -> list[str]:
        """The next message that is not `but`."""
        self.socket.settimeout(DEADLINE_SECONDS)
        while (lines := self.socket.recv(4096).decode().split("\n")) == [but]:
            pass
        return lines

    def silent(self) -> bool:
        self.socket.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            self.socket.recv(4096)
            return False
        return True


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Manager]:
    # Paths of sockets have at most 107 bytes (unix(7)); those of tests may be longer.
    monkeypatch.chdir(tmp_path)
    made = Manager("notify.sock" if request.param == "path" else f"@{uuid.uuid4().hex}")
    yield made
    made.socket.close()


def variables(manager: Manager, **more: str) -> dict[str, str]:
    return {**os.environ, "NOTIFY_SOCKET": manager.address, **more}


def speak(server: Server) -> None:
    server.channel.notify(ALIVE, 0)


def test_ready_is_said_once_when_the_server_shows_life_and_stopping_at_the_end(
    manager: Manager, tmp_path: Path
) -> None:
    with supervised(tmp_path, env=variables(manager)) as supervisor:
        server = supervisor.serve()
        assert manager.silent(), "a server that does not serve yet is not ready"
        speak(server)
        assert manager.next() == ["READY=1", "STATUS=serving"]
        speak(server)
        os.kill(server.os_pid, signal.SIGKILL)
        speak(supervisor.serve())
        os.kill(supervisor.pid, signal.SIGTERM)
        assert manager.next()[0] == "STOPPING=1"
        assert supervisor.wait() == 0


def test_a_reload_is_over_when_the_next_version_s_server_serves(manager: Manager, tmp_path: Path) -> None:
    with supervised(tmp_path, env=variables(manager)) as supervisor:
        server = supervisor.serve()
        speak(server)
        assert manager.next()[0] == "READY=1"
        before_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        os.kill(supervisor.pid, signal.SIGHUP)
        reloading = dict(line.split("=", 1) for line in manager.next())
        assert reloading["RELOADING"] == "1"
        after_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        assert before_us <= int(reloading["MONOTONIC_USEC"]) <= after_us
        fresh = supervisor.serve()
        assert manager.silent()
        speak(fresh)
        assert manager.next()[0] == "READY=1"


def test_the_watchdog_is_fed_until_the_supervisor_hangs(manager: Manager, tmp_path: Path) -> None:
    env = variables(manager, WATCHDOG_USEC="200000")
    with supervised(tmp_path, env=env) as supervisor:
        supervisor.serve()
        seen = [manager.next(but="") for _ in range(5)]
        assert seen == [["WATCHDOG=1"]] * 5
        os.kill(supervisor.pid, signal.SIGSTOP)
        _drain(manager, supervisor)
        manager.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            manager.socket.recv(4096)
        os.kill(supervisor.pid, signal.SIGCONT)
        assert manager.next(but="") == ["WATCHDOG=1"]


def _drain(manager: Manager, supervisor: Supervised) -> None:
    """Take what was said before the stop took effect."""
    stat = Path(f"/proc/{supervisor.pid}/stat")
    while stat.read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.005)
    while not manager.silent():
        pass


@pytest.mark.parametrize(
    ("environment", "fed"),
    [
        ({"WATCHDOG_USEC": "1000"}, True),
        ({"WATCHDOG_USEC": "1000", "WATCHDOG_PID": str(os.getpid())}, True),
        ({"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}, False),
        ({"WATCHDOG_USEC": "soon"}, False),
        ({}, False),
    ],
)
def test_the_watchdog_is_only_fed_where_it_watches_this_process(
    environment: dict[str, str], fed: bool, manager: Manager
) -> None:
    loop = Loop()
    ServiceManager(loop, {"NOTIFY_SOCKET": manager.address, **environment}).watch()
    assert manager.silent() is not fed
    loop.close()


@pytest.mark.parametrize("address", ["", "/nowhere/notify.sock", "@nobody-listens-here"])
def test_no_manager_is_no_trouble(address: str) -> None:
    loop = Loop()
    told = ServiceManager(loop, {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000"})
    told.watch()
    told.ready()
    told.reloading()
    told.stopping()
    loop.close()
