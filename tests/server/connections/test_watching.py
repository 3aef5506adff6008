"""What one client watches: one viewer for each process, and no gap in holds between two of them."""

from __future__ import annotations

import asyncio
import signal

import msgspec

from mhnos_runtime.output import NO_HOLD
from mhnos_runtime.process.facts import UNKNOWN
from mhnos_runtime.server.connections.viewer import Viewer
from mhnos_runtime.server.connections.watching import Watching
from tests.server.connections.scene import Scene, turns_until


def watching(scene: Scene) -> tuple[Watching, list[Viewer]]:
    """ready: viewers that had something to hand out, in order."""
    ready: list[Viewer] = []
    return Watching(scene.lifetimes, True, ready.append), ready


async def test_a_viewer_is_ready_once_it_can_be_found(scene: Scene) -> None:
    """Also where it has nothing yet: only then does it sleep, and is woken."""
    program = scene.program()
    found: list[bool] = []
    one = Watching(scene.lifetimes, True, lambda viewer: found.append(one.get(1000) is viewer))
    one.watch(program.process, 0, False)
    assert found == [True]


async def test_output_wakes_it(scene: Scene) -> None:
    program = scene.program()
    one, ready = watching(scene)
    one.watch(program.process, 0, False)
    assert ready[0].next_frame() is None
    program.write(b"x")
    assert len(ready) == 2


async def test_another_view_of_a_process_takes_the_place_of_the_first(scene: Scene) -> None:
    program = scene.program()
    program.write(b"123")
    one, ready = watching(scene)
    replayed: list[Viewer] = []
    one.watch(program.process, 0, True, replayed.append)
    one.watch(program.process, 1, True)
    first, second = ready
    assert (first.gone.is_set(), second.gone.is_set()) == (True, False)
    assert (replayed, one.get(1000)) == ([first], second)
    assert list(program.process.viewers) == [second]
    assert program.process.log.hold == 1


async def test_a_process_does_not_linger_between_two_views(scene: Scene) -> None:
    """The new one is there before the old one goes: with a linger of nothing, the process would end."""
    program = scene.program(facts=msgspec.structs.replace(UNKNOWN, linger_ms=0))
    one, _ = watching(scene)
    one.watch(program.process, 0, False)
    one.watch(program.process, 0, False)
    for _turn in range(3):
        await asyncio.sleep(0)
    assert scene.link.called == []
    one.unwatch(1000)
    await turns_until(lambda: ("kill", 1000, signal.SIGTERM, "idle", True) in scene.link.called)


async def test_an_ended_process_is_forgotten_with_its_last_viewer(scene: Scene) -> None:
    """It is dropped before: the log is closed by then."""
    for pid in range(1000, 1012):
        scene.program(pid)
    one, _ = watching(scene)
    process = scene.programs[0].process
    one.watch(process, 0, False)
    for program in scene.programs:
        program.end()
    assert scene.table.get(1000) is process
    one.unwatch(1000)
    assert scene.table.get(1000) is None
    assert ("forget", 1000) in scene.link.called


async def test_who_watches_nothing_of_a_process_may_leave_it(scene: Scene) -> None:
    program = scene.program()
    one, _ = watching(scene)
    one.unwatch(1000)
    one.watch(program.process, 0, False)
    one.unwatch(1000)
    one.unwatch(1000)
    assert (one.get(1000), program.process.viewers) == (None, {})


async def test_all_leave_with_the_client(scene: Scene) -> None:
    programs = [scene.program(pid) for pid in (1000, 1001)]
    for vanished in (False, True):
        one, ready = watching(scene)
        for program in programs:
            one.watch(program.process, 0, False)
        one.unwatch_all(vanished)
        assert all(viewer.gone.is_set() for viewer in ready)
        assert [program.process.log.hold for program in programs] == [0 if vanished else NO_HOLD] * 2


# Records that go at the end

REMOVED = msgspec.structs.replace(UNKNOWN, remove=True)


async def test_a_record_waits_for_who_started_it_until_the_goodbye(scene: Scene) -> None:
    program = scene.program(facts=REMOVED)
    one, _ = watching(scene)
    one.started(program.process)
    scene.lifetimes.linger(program.process)
    program.end()
    assert scene.table.get(1000) is program.process
    one.unwatch_all(vanished=False)
    assert scene.table.get(1000) is None


async def test_a_record_waits_for_who_read_its_end(scene: Scene) -> None:
    program = scene.program(facts=REMOVED)
    one, _ = watching(scene)
    one.watch(program.process, 0, False)
    program.end()
    one.finished(1000)
    assert (one.get(1000), scene.table.get(1000)) == (None, program.process)
    one.unwatch_all(vanished=False)
    assert scene.table.get(1000) is None


async def test_a_record_waits_for_who_was_cut_off(scene: Scene) -> None:
    program = scene.program(facts=REMOVED)
    one, _ = watching(scene)
    one.watch(program.process, 0, False)
    one.unwatch_all(vanished=True)
    program.end()
    assert scene.table.get(1000) is program.process
    again, _ = watching(scene)
    again.watch(program.process, 0, False)
    again.finished(1000)
    again.unwatch_all(vanished=False)
    assert scene.table.get(1000) is None


async def test_a_client_that_detaches_is_not_waited_for(scene: Scene) -> None:
    program = scene.program(facts=REMOVED)
    one, _ = watching(scene)
    one.watch(program.process, 0, False)
    one.unwatch(1000)
    program.end()
    assert scene.table.get(1000) is None


async def test_what_a_client_is_waited_for_is_forgotten_with_the_records(scene: Scene) -> None:
    one, _ = watching(scene)
    for pid in range(1000, 1010):
        program = scene.program(pid, facts=REMOVED)
        one.started(program.process)
        scene.lifetimes.linger(program.process)
        program.end()
        scene.lifetimes.remove(program.process)
    assert list(one._waited_for) == [1009]
    one.unwatch_all(vanished=False)
