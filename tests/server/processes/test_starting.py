"""Starts within bounds: of the table, of single kinds, of descriptors; and what is left when one fails."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.errors import InvalidRequest, LimitReached, NotFound, Refused, StartFailed
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.launch import LaunchPlan, StartDescriptors
from mhnos_runtime.process.facts import ProcessFacts
from mhnos_runtime.process.kind import Hooks, Kind
from mhnos_runtime.process.table import Process, ProcessTable
from mhnos_runtime.server.processes import room
from mhnos_runtime.server.processes.starting import Starting
from mhnos_runtime.wire import messages as m
from tests.server.processes.scene import (
    Link,
    Processes,
    descriptors,
    ended,
    is_open,
    planner,
    shell,
    turns,
)

MOST = 3


class OfRunning(Hooks):
    """Tells a process the name of the one that runs."""

    def environment(self, running: ProcessFacts | None, /) -> Mapping[str, str]:
        return {} if running is None else {"RUNNING": running.name or ""}


SINGLE = Kind("single", ("sh", "-c", "{command}"), command="text", single=True, hooks=OfRunning())


class Starts:
    """What the link is asked for starts when the test lets it."""

    def __init__(self, processes: Processes, link: Any, folder: Path) -> None:
        self._processes = processes
        self.link: Link = link
        self.table = ProcessTable(MOST, 10, 1000)
        self.workspace = folder / "workspace"
        self.starting = Starting(self.table, planner(folder, SINGLE), link)
        self.plans: list[LaunchPlan] = []
        self.opened: list[int] = []
        self.go = asyncio.Event()
        self.error: Exception | None = None
        link.spawned = self._spawned

    async def _spawned(self, plan: LaunchPlan, given: StartDescriptors) -> int:
        self.plans.append(plan)
        self.opened += given.sent()
        assert all(map(is_open, given.sent()))
        pid = 999 + len(self.plans)
        await self.go.wait()
        if self.error is not None:
            raise self.error
        process = self._processes.make(pid)
        process.facts = ProcessFacts.decode(plan.facts)
        self.table.add(process, new=True)
        return pid

    def begin(self, request: m.Spawn) -> asyncio.Task[Process]:
        return asyncio.create_task(self.starting.spawn(request))


@pytest.fixture
def starts(processes: Processes, link: Link, tmp_path: Path) -> Starts:
    return Starts(processes, link, tmp_path)


def single(name: str = "first", **fields: Any) -> m.Spawn:
    return m.Spawn(process_type="single", command="true", name=name, **fields)


async def test_a_start_is_an_entry_in_the_table(starts: Starts) -> None:
    starts.go.set()
    process = await starts.starting.spawn(shell("echo a", name="mine"))
    assert starts.table.get(process.pid) is process
    assert (process.facts.name, process.facts.command) == ("mine", "echo a")
    assert starts.table.starting == 0


async def test_starts_under_way_count_against_the_limit(starts: Starts) -> None:
    tasks = [starts.begin(shell()) for _ in range(MOST)]
    await turns()
    assert starts.table.starting == MOST
    with pytest.raises(LimitReached) as refused:
        await starts.starting.spawn(shell())
    assert refused.value.code == "too-many-processes"
    tasks[0].cancel()
    await turns()
    starts.go.set()
    await starts.starting.spawn(shell())
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (starts.table.starting, starts.table.active) == (0, MOST)


@pytest.mark.parametrize("failure", [StartFailed("no"), OSError(errno.EMFILE, "none"), None])
async def test_what_a_start_opened_is_closed(starts: Starts, failure: Exception | None) -> None:
    before = descriptors()
    starts.error = failure
    task = starts.begin(shell())
    await turns()
    assert descriptors() == before + 1, "the folder"
    if failure is None:
        task.cancel()
    starts.go.set()
    await asyncio.gather(task, return_exceptions=True)
    assert (descriptors(), starts.table.starting) == (before, 0)
    assert not any(map(is_open, starts.opened))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
@pytest.mark.parametrize("where", ["prepare", "send"])
async def test_without_descriptors_a_start_is_refused(
    starts: Starts, number: int, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts.go.set()
    with monkeypatch.context() as patch:
        if where == "prepare":
            patch.setattr(Workspace, "open_dir", _raise(OSError(number, "none left")))
        else:
            starts.error = OSError(number, "none left")
        with pytest.raises(LimitReached, match="no descriptors left") as refused:
            await starts.starting.spawn(shell())
    assert (refused.value.code, refused.value.retry) == ("start-failed", True)
    starts.error = None
    await starts.starting.spawn(shell())
    assert starts.table.starting == 0


def _raise(error: Exception) -> Any:
    def raising(*_: object) -> None:
        raise error

    return raising


async def test_another_error_of_the_system_is_no_lack_of_descriptors(starts: Starts) -> None:
    starts.go.set()
    starts.error = OSError(errno.EIO, "broken")
    with pytest.raises(OSError, match="broken"):
        await starts.starting.spawn(shell())
    assert starts.table.starting == 0


async def test_each_start_under_way_keeps_its_descriptors(
    starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = room.HEALTH_DESCRIPTORS + room.START_DESCRIPTORS
    monkeypatch.setattr(room, "free_descriptors", lambda: free)
    first = starts.begin(shell())
    await turns()
    with pytest.raises(LimitReached, match="no descriptors left"):
        await starts.starting.spawn(shell())
    starts.go.set()
    await first
    await starts.starting.spawn(shell())


# One at a time


async def test_a_single_kind_that_is_started_twice_at_once_runs_once(starts: Starts) -> None:
    first = starts.begin(single())
    await turns()
    with pytest.raises(Refused, match=r"single runs already$") as refused:
        await starts.starting.spawn(single())
    assert refused.value.code == "already-running"
    starts.go.set()
    process = await first
    with pytest.raises(Refused, match=f"as process {process.pid}$"):
        await starts.starting.spawn(single())
    process.end(ended())
    assert (await starts.starting.spawn(single())).pid != process.pid


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_single_kind_whose_start_fails_may_start_again(starts: Starts, cancelled: bool) -> None:
    starts.error = StartFailed("no")
    first = starts.begin(single())
    await turns()
    if cancelled:
        first.cancel()
    starts.go.set()
    await asyncio.gather(first, return_exceptions=True)
    starts.error = None
    await starts.starting.spawn(single())


async def test_one_of_a_single_kind_that_is_asked_for_again_by_its_key_is_found(starts: Starts) -> None:
    """The key comes before the bound: a client that asks again has asked for the one that runs."""
    starts.go.set()
    tasks = [starts.begin(single(key="k")) for _ in range(2)]
    first, second = await asyncio.gather(*tasks)
    assert first is second
    with pytest.raises(Refused):
        await starts.starting.spawn(single(key="another"))


async def test_a_process_is_told_of_the_one_of_its_kind(starts: Starts) -> None:
    starts.go.set()
    assert "RUNNING" not in starts.starting.plan(single()).env
    first = await starts.starting.spawn(single("the-first"))
    assert starts.starting.plan(single()).env["RUNNING"] == "the-first"
    first.end(ended())
    assert "RUNNING" not in starts.starting.plan(single()).env


# Without a start


async def test_a_plan_starts_nothing_and_leaves_nothing(starts: Starts) -> None:
    before = descriptors()
    request = shell("echo a", options=m.SpawnOptions(env={"A": "b"}))
    planned = [starts.starting.plan(request) for _ in range(MOST + 1)]
    assert (descriptors(), starts.plans, starts.table.starting) == (before, [], 0)
    starts.go.set()
    await starts.starting.spawn(request)
    assert starts.plans == planned[:1]


async def test_a_plan_is_refused_as_its_start_would_be(starts: Starts) -> None:
    for wrong in (m.Spawn(process_type="none"), shell(ports={"x": 0}), m.Spawn("python", "none.py")):
        with pytest.raises((InvalidRequest, NotFound)) as planned:
            starts.starting.plan(wrong)
        with pytest.raises(type(planned.value)) as started:
            await starts.starting.spawn(wrong)
        assert str(planned.value) == str(started.value)


async def test_a_worker_s_config_is_that_of_its_script(starts: Starts) -> None:
    (starts.workspace / "hello.js").write_text("export default {}")
    config = starts.starting.worker_config(m.WorkerConfig("hello.js"))
    assert 'embed "' in config
    with pytest.raises(InvalidRequest, match="no worker script"):
        starts.starting.worker_config(m.WorkerConfig("hello.capnp"))
