"""The child that waits for the next start, and the control groups it joins meanwhile: folders, here."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.launch import Confinement, Limits
from mhnos_runtime.supervisor import launcher
from tests.supervisor.harness import Refused, Server, Supervised, alive, eventually

MARK = "somebody is in it"


def limited(tasks: int, *folders: Path) -> dict[str, Any]:
    """Part of a plan: limits that are held by groups below these folders."""
    hierarchies = tuple(("pids", str(folder)) for folder in folders)
    return {"confine": Confinement(limits=Limits(0, tasks, 0, hierarchies))}


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
    server.ended(server.sh("exit 1", **limited(30, tmp_path)))
    door = joined(tmp_path)
    assert server.ended(server.sh("exit 7", **limited(31, tmp_path))).code == 7
    assert door.read_text() == MARK
    assert (tmp_path / "p1001" / "pids.max").read_text() == "31"
    assert [(tmp_path / "p1000" / name).read_text() for name in ("cgroup.procs", "pids.max")] == ["0", "30"]


def test_one_that_comes_sooner_joins_at_its_start(server: Server, tmp_path: Path) -> None:
    requests = [server.request(("/bin/sh", "-c", "exit 7"), **limited(30, tmp_path)) for _ in range(3)]
    for pid, request in enumerate(requests, 1000):
        assert server.ended(server.answer(request)).code == 7
        assert (tmp_path / f"p{pid}" / "cgroup.procs").read_text() == "0"
        assert (tmp_path / f"p{pid}" / "pids.max").read_text() == "30"


@pytest.mark.parametrize("others", [["elsewhere"], []])
def test_one_with_other_groups_gets_another_child(
    supervisor: Supervised, server: Server, tmp_path: Path, others: list[str]
) -> None:
    server.ended(server.sh("exit 1", **limited(30, tmp_path)))
    joined(tmp_path)
    child = waiting(supervisor, server)
    folders = [tmp_path / name for name in others]
    for folder in folders:
        folder.mkdir()
    process = server.sh("exit 7", **limited(30, *folders))
    assert process.os_pid != child
    assert not os.path.exists(f"/proc/{child}")
    assert server.ended(process).code == 7
    assert [(folder / "p1001" / "cgroup.procs").read_text() for folder in folders] == ["0"] * len(folders)


def test_a_start_that_fails_takes_the_child_with_it(
    supervisor: Supervised, server: Server, tmp_path: Path
) -> None:
    """It is in groups with limits that the next one may not have."""
    server.ended(server.sh("exit 1", **limited(30, tmp_path)))
    door = joined(tmp_path)
    child = waiting(supervisor, server)
    in_the_way = supervisor.state_dir / "processes" / "1001.log"
    in_the_way.mkdir()
    with pytest.raises(Refused):
        server.sh("exit 2", **limited(31, tmp_path))
    in_the_way.rmdir()
    assert not os.path.exists(f"/proc/{child}")
    for file in door.parent.iterdir():  # which in a real one are in nobody's way
        file.unlink()
    door.parent.rmdir()
    assert server.ended(server.sh("exit 7", **limited(0, tmp_path))).code == 7
    assert not (tmp_path / "p1001" / "pids.max").exists()


def test_a_child_that_is_killed_is_replaced(supervisor: Supervised, server: Server, tmp_path: Path) -> None:
    server.ended(server.sh("exit 1", **limited(30, tmp_path)))
    door = joined(tmp_path)
    child = waiting(supervisor, server)
    for file in door.parent.iterdir():
        file.unlink()
    os.kill(child, signal.SIGKILL)
    eventually(lambda: door.exists() and door.read_text() == "0", "that another one has joined")
    assert waiting(supervisor, server) != child
    assert server.ended(server.sh("exit 7", **limited(30, tmp_path))).code == 7


def test_groups_that_cannot_be_made_fail_the_start(server: Server, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="the limits could not be set") as refused:
        server.sh("exit 0", **limited(30, tmp_path / "missing"))
    assert refused.value.body["code"] == "start-failed"
    assert server.ended(server.sh("exit 7")).code == 7


def test_what_cannot_be_joined_in_advance_is_left_to_the_start(tmp_path: Path) -> None:
    doors = [tmp_path / "open", tmp_path / "missing" / "closed"]
    assert launcher._joined(map(str, doors)) == {str(doors[0])}
    assert doors[0].read_text() == "0"
