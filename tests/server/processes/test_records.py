"""Facts that are found out later, and names: kept, sent to the supervisor, and told."""

from __future__ import annotations

from typing import Any

import pytest

from mhnos_runtime.errors import InvalidRequest, Refused
from mhnos_runtime.process.facts import UNKNOWN, Found
from mhnos_runtime.process.ready import Port, Readiness
from mhnos_runtime.process.table import Process, ProcessTable
from mhnos_runtime.server.processes.records import Records
from tests.server.processes.scene import Link, Processes, ended


class Scene:
    def __init__(self, processes: Processes, link: Link) -> None:
        self.told: list[tuple[str, int]] = []
        self.table = ProcessTable(10, 10, 1000)
        self.link = link
        self.records = Records(self.table, link, self._tell)  # type: ignore[arg-type]
        self._processes = processes

    def _tell(self, what: str, process: Process, _time_ms: int) -> None:
        self.told.append((what, process.pid))

    def come(self, pid: int, **known: Any) -> Process:
        process = self._processes.make(pid, **known)
        self.table.add(process)
        return process


@pytest.fixture
def scene(processes: Processes, link: Link) -> Scene:
    return Scene(processes, link)


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (Found(ready=Readiness("ready")), ["ready"]),
        (Found(ready=Readiness("failed", "late")), ["ready"]),
        (Found(ports=(Port("http", 80, ""),)), []),
    ],
)
def test_what_is_found_is_kept_here_and_there(scene: Scene, found: Found, told: list[str]) -> None:
    process = scene.come(1000)
    woken: list[bool] = []
    process.viewers["viewer"] = lambda: woken.append(True)
    scene.records.note(process, found)
    assert process.facts == process.facts.with_found(found)
    assert scene.link.asked == [("note", 1000, found)]
    assert woken == [True]
    assert scene.told == [(what, 1000) for what in told]


def test_a_process_is_renamed_once(scene: Scene) -> None:
    process = scene.come(1000, name="old")
    for _ in range(2):
        scene.records.rename(process, "new")
    assert scene.table.find("new") is process
    scene.records.rename(process, None)
    assert scene.table.get("new") is None
    assert scene.link.asked == [("note", 1000, Found(name="new")), ("note", 1000, Found(name=None))]
    assert scene.told == [("renamed", 1000)] * 2


def test_not_to_what_is_no_name_nor_to_one_that_is_taken(scene: Scene) -> None:
    process, over = scene.come(1000), scene.come(1001, ended_as=ended())
    scene.come(1002, name="taken")
    scene.table.reserve("starting")
    with pytest.raises(InvalidRequest, match="not allowed"):
        scene.records.rename(process, "No Name")
    for each in (process, over):
        for name in ("taken", "starting"):
            with pytest.raises(Refused, match="is taken"):
                scene.records.rename(each, name)
    assert (scene.link.asked, scene.told) == ([], [])


def test_what_another_version_has_written_is_not_changed(scene: Scene) -> None:
    process = scene.come(1000)
    process.facts = UNKNOWN
    with pytest.raises(Refused, match="nothing is known"):
        scene.records.rename(process, "name")
    assert scene.link.asked == []
