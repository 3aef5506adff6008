"""Processes that the server had no descriptors for: ended, and never spoken of to that server again."""

from __future__ import annotations

import os
import resource
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from mhnos_runtime.supervisor.descriptors import KEPT_DESCRIPTORS, START_DESCRIPTORS
from tests.supervisor.harness import (
    ANYTHING,
    Refused,
    Seen,
    Server,
    Supervised,
    alive,
    eventually,
    supervised,
)

#: Its child leaves its session and its group, and ignores what can be ignored.
CLING = "setsid sh -c 'trap \"\" TERM HUP; echo child $$; sleep 600; :' & wait; sleep 600"


def events(server: Server, process: Seen) -> list[str]:
    return [body["event"] for body in server.events if body.get("pid") == process.pid]


def test_a_discarded_process_ends_with_its_tree_and_is_forgotten(
    supervisor: Supervised, server: Server
) -> None:
    before = len(supervisor.descriptors())
    process = server.sh(CLING)
    below = int(server.said(process, b"\n").split()[1])
    server.ask("discard", process)
    server.until(lambda: not alive(process.os_pid), "its end")
    server.until(lambda: supervisor.files() == [], "that its log is gone")
    assert not alive(below)
    assert events(server, process) == []
    assert "could not take a process over" in supervisor.log
    eventually(lambda: len(supervisor.descriptors()) <= before + 1, "that its descriptors are given back")
    os.kill(server.os_pid, signal.SIGKILL)
    second = supervisor.serve()
    assert second.processes == {}


def test_one_that_has_ended_is_forgotten_at_once(supervisor: Supervised, server: Server) -> None:
    process = server.sh("exit 3")
    server.ended(process)
    for _ in range(2):  # the second time it is nobody's
        server.ask("discard", process)
    assert server.ended(server.sh("exit 4")).code == 4
    assert [name for name in supervisor.files() if name.startswith("1000")] == []


def test_a_server_that_comes_meanwhile_is_told(supervisor: Supervised, server: Server) -> None:
    """Until the last of it is gone it stands in the list: there is no ghost at any moment."""
    process = server.sh("trap '' TERM; echo up; read line")
    server.said(process, b"up")
    server.ask("discard", process)
    eventually(lambda: "could not take a process over" in supervisor.log, "that it is being ended")
    os.kill(server.os_pid, signal.SIGKILL)
    second = supervisor.serve()
    if process.pid in second.processes:
        assert second.ended(second.processes[process.pid]).signal == "SIGKILL"
    eventually(lambda: not alive(process.os_pid), "its end")


def test_a_discarded_process_counts_until_it_is_gone(tmp_path: Path) -> None:
    with supervised(tmp_path, allowed=replace(ANYTHING, processes=1)) as running:
        server = running.serve()
        process = server.sh("echo up; exec sleep 600")
        server.said(process, b"up")
        with pytest.raises(Refused, match="Maximum process limit"):
            server.sh("exit 0")
        server.ask("discard", process)
        server.until(lambda: running.files() == [], "its end")
        assert server.ended(server.sh("exit 5")).code == 5


def test_a_start_is_refused_before_the_reserve_is_touched(supervisor: Supervised, server: Server) -> None:
    """At each number of free descriptors a start is answered; a server can be started and a tree ended."""
    process = server.sh("echo up; sleep 600 & exec sleep 600")
    server.said(process, b"up")
    before = resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE)
    highest = 1 + max(int(name) for name in os.listdir(f"/proc/{supervisor.pid}/fd"))
    outcomes = []
    for free in range(START_DESCRIPTORS + KEPT_DESCRIPTORS + 20):
        resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE, (highest + free, before[1]))
        try:
            started = server.sh("exit 3")
            outcomes.append(server.ended(started).code == 3)
            server.ask("forget", started)
        except Refused as refused:
            outcomes.append(refused.body["code"] != "start-failed")
    assert not any(outcomes[:KEPT_DESCRIPTORS])
    assert outcomes[-1]
    resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE, (highest + KEPT_DESCRIPTORS, before[1]))
    os.kill(server.os_pid, signal.SIGKILL)
    second = supervisor.serve()
    second.kill(second.processes[process.pid], signal.SIGKILL)
    assert second.ended(second.processes[process.pid]).signal == "SIGKILL"
