"""An exception in the supervisor's own code costs one process, or nobody; it once ended every process."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mhnos_runtime.channel import TYPED
from tests.supervisor.harness import Refused, Seen, Server, Supervised, alive, eventually, supervised

FAULTY = Path(__file__).with_name("faulty")


@contextlib.contextmanager
def broken(tmp_path: Path, where: str) -> Iterator[Supervised]:
    environment = {**os.environ, "PYTHONPATH": str(FAULTY), "MHNOS_TEST_FAULT": where}
    with supervised(tmp_path, env=environment) as supervisor:
        yield supervisor


def nothing(_server: Server, _process: Seen) -> None: ...


def typed(server: Server, process: Seen) -> None:
    server.channel.notify(TYPED, process.pid)


def killed(server: Server, process: Seen) -> None:
    server.kill(process, signal.SIGKILL)


def noted(server: Server, process: Seen) -> None:
    server.ask("note", process, found={"a": 1})


def gone(_server: Server, process: Seen) -> None:
    os.kill(process.os_pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("where", "act", "reason"),
    [
        ("capture Capture _read", lambda _server, process: process.write(b"x\n"), "killed"),
        ("capture Capture typed", typed, "killed"),
        ("capture Capture drain", gone, "signal"),
        ("process Process _settle", nothing, "killed"),
        ("process Process note", noted, "killed"),
        ("process Process end", killed, "lost"),
        ("process Process main_exited", gone, "lost"),
        ("process Process _exit_record", gone, "lost"),
        ("process Process _source_closed", gone, "signal"),
    ],
)
def test_a_defect_costs_the_process_it_belongs_to(
    tmp_path: Path, where: str, act: Callable[[Server, Seen], None], reason: str
) -> None:
    with broken(tmp_path, where) as supervisor:
        server = supervisor.serve()
        process, other = (server.sh("cat; sleep 60 & wait") for _ in range(2))
        assert process.pid == 1000
        act(server, process)
        record = server.ended(process)
        assert record.reason == reason
        assert "ZeroDivisionError: on purpose at sitecustomize.py:" in record.evidence
        assert 'a defect of the supervisor exception="ZeroDivisionError: on purpose at' in supervisor.log
        eventually(lambda: not alive(process.os_pid), "its end")
        other.write(b"goes on\n")
        server.said(other, b"goes on")
        again = supervisor.serve_again()
        assert again.processes[1000].exit == record
        again.ask("forget", again.processes[1000])
        assert again.ended(again.sh("exit 3")).code == 3
        eventually(
            lambda: not [name for name in supervisor.files() if name.startswith("1000")], "its removal"
        )


def test_a_defect_in_a_start_refuses_it(tmp_path: Path) -> None:
    with broken(tmp_path, "process Process _on_verdict") as supervisor:
        server = supervisor.serve()
        with pytest.raises(Refused) as refused:
            server.sh("sleep 60")
        assert refused.value.body["code"] == "internal"
        assert server.ended(server.sh("exit 3")).code == 3
        assert supervisor.files() == ["1001.json", "1001.log"]


def test_a_record_that_cannot_be_told_does_not_keep_a_server_from_the_others(tmp_path: Path) -> None:
    with broken(tmp_path, "process Process record") as supervisor:
        server = supervisor.serve()
        with pytest.raises(AssertionError):
            server.answer(server.request(("/bin/sleep", "60")), 2)
        other = server.sh("cat")
        again = supervisor.serve_again()
        assert list(again.processes) == [other.pid]
        assert supervisor.log.count("Traceback") == 0


# The loop
