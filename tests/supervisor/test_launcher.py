"""The child that waits for the next start, and the control groups it joins meanwhile: folders, here."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.launch import Choice, Wish
from mhnos_runtime.sandbox import HostFacts, Policy, Sandbox
from mhnos_runtime.supervisor import launcher
from tests.supervisor.harness import (
    ANYTHING,
    Refused,
    Server,
    Supervised,
    alive,
    eventually,
    supervised,
)

MARK = "somebody is in it"


def limited(tasks: int = 0, memory_bytes: int = 0) -> dict[str, Any]:
    """Part of a plan: limits, for each of which there is a folder of groups."""
    return {"choice": Choice(Wish(tasks=tasks, memory_bytes=memory_bytes))}


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervised]:
    """Groups for tasks are made in tmp_path, those for memory elsewhere."""
    (tmp_path / "elsewhere").mkdir()
    facts = HostFacts(cgroups=(("pids", str(tmp_path)), ("memory", str(tmp_path / "elsewhere"))))
    allowed = replace(ANYTHING, sandbox=Sandbox(Policy("none"), facts, "/"))
    with supervised(tmp_path, allowed=allowed) as running:
        yield running


def waiting(supervisor: Supervised, server: Server) -> int:
    """The OS pid of the child that waits."""
    children = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children")
    known = {server.os_pid, *(process.os_pid for process in server.processes.values())}

    def only() -> list[int]:
        found = [int(word) for word in children.read_text().split()]
        return [os_pid for os_pid in found if os_pid not in known and alive(os_pid)]

    os_pid: int = eventually(lambda: only() if len(only()) == 1 else [], "a child that waits")[0]
    return os_pid


def joined(folder: Path) -> Path:
    """What the child that waits has written to join; marked, so that who joins again is seen."""
    door = folder / "p1001" / "cgroup.procs"
    eventually(lambda: door.exists() and door.read_text() == "0", "that it has joined")
    assert not (folder / "p1001" / "pids.max").exists()
    door.write_text(MARK)
    return door


def test_the_next_one_has_joined_before_it_is_asked_for(server: Server, tmp_path: Path) -> None:
    server.ended(server.sh("exit 1", **limited(30)))
    door = joined(tmp_path)
    assert server.ended(server.sh("exit 7", **limited(31))).code == 7
    assert door.read_text() == MARK
    assert (tmp_path / "p1001" / "pids.max").read_text() == "31"
    assert [(tmp_path / "p1000" / name).read_text() for name in ("cgroup.procs", "pids.max")] == ["0", "30"]


def test_one_that_comes_sooner_joins_at_its_start(server: Server, tmp_path: Path) -> None:
    requests = [server.request(("/bin/sh", "-c", "exit 7"), **limited(30)) for _ in range(3)]
    for pid, request in enumerate(requests, 1000):
        assert server.ended(server.answer(request)).code == 7
        assert (tmp_path / f"p{pid}" / "cgroup.procs").read_text() == "0"
        assert (tmp_path / f"p{pid}" / "pids.max").read_text() == "30"


@pytest.mark.parametrize("memory_bytes", [1 << 30, 0])
def test_one_with_other_groups_gets_another_child(
    supervisor: Supervised, server: Server, tmp_path: Path, memory_bytes: int
) -> None:
    server.ended(server.sh("exit 1", **limited(30)))
    joined(tmp_path)
    child = waiting(supervisor, server)
    process = server.sh("exit 7", **limited(0, memory_bytes))
    assert process.os_pid != child
    assert not os.path.exists(f"/proc/{child}")
    assert server.ended(process).code == 7
    joined_elsewhere = [door.read_text() for door in tmp_path.glob("elsewhere/p1001/cgroup.procs")]
    assert joined_elsewhere == (["0"] if memory_bytes else [])


def test_a_start_that_fails_takes_the_child_with_it(
    supervisor: Supervised, server: Server, tmp_path: Path
) -> None:
    """It is in groups with limits that the next one may not have."""
    server.ended(server.sh("exit 1", **limited(30)))
    door = joined(tmp_path)
    child = waiting(supervisor, server)
    in_the_way = supervisor.state_dir / "processes" / "1001.log"
    in_the_way.mkdir()
    with pytest.raises(Refused):
        server.sh("exit 2", **limited(31))
    in_the_way.rmdir()
    assert not os.path.exists(f"/proc/{child}")
    for file in door.parent.iterdir():  # which in a real one are in nobody's way
        file.unlink()
    door.parent.rmdir()
    assert server.ended(server.sh("exit 7", **limited(0))).code == 7
    assert not (tmp_path / "p1001" / "pids.max").exists()


def test_a_child_that_is_killed_is_replaced(supervisor: Supervised, server: Server, tmp_path: Path) -> None:
    server.ended(server.sh("exit 1", **limited(30)))
    door = joined(tmp_path)
    child = waiting(supervisor, server)
    for file in door.parent.iterdir():
        file.unlink()
    os.kill(child, signal.SIGKILL)
    eventually(lambda: door.exists() and door.read_text() == "0", "that another one has joined")
    assert waiting(supervisor, server) != child
    assert server.ended(server.sh("exit 7", **limited(30))).code == 7


def test_groups_that_cannot_be_made_fail_the_start(server: Server, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").rmdir()
    with pytest.raises(Refused, match="the limits could not be set") as refused:
        server.sh("exit 0", **limited(0, 1 << 30))
    assert refused.value.body["code"] == "start-failed"
    assert server.ended(server.sh("exit 7")).code == 7


def test_what_cannot_be_joined_in_advance_is_left_to_the_start(tmp_path: Path) -> None:
    doors = [tmp_path / "open", tmp_path / "missing" / "closed"]
    assert launcher._joined(map(str, doors)) == {str(doors[0])}
    assert doors[0].read_text() == "0"
