"""What the supervisor reports, as changes of the table: with real logs, terminals and control sockets."""

from __future__ import annotations

import os
import pty
import socket
import termios
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from mhnos_runtime.errors import Unavailable
from mhnos_runtime.launch import STDOUT, ProcessDescriptors, ProcessRecord
from mhnos_runtime.output.layout import BURST_BYTES
from mhnos_runtime.process.facts import UNKNOWN
from mhnos_runtime.process.ready import Port, Readiness, Watch
from mhnos_runtime.process.table import Process, ProcessTable
from mhnos_runtime.server.processes.lifetimes import Lifetimes
from mhnos_runtime.server.processes.records import Records
from mhnos_runtime.server.processes.reports import Reports
from mhnos_runtime.server.processes.terminals import SETTLE_SECONDS, Terminals
from tests.server.processes.scene import (
    SIZE,
    Link,
    ManualLoop,
    Processes,
    descriptors,
    ended,
    facts,
    is_open,
    turns,
)

STARTING = Readiness("starting")
READY = Readiness("ready")
#: Long: those of a test that waits for it ring on the test's own clock.
STALL_SECONDS = 10.0


class Scene:
    def __init__(self, processes: Processes, loop: Any, link: Any) -> None:
        self.processes = processes
        self.loop: ManualLoop = loop
        self.link: Link = link
        self.table = ProcessTable(100, 10, 60_000, spawned=5)
        self.told: list[tuple[str, int]] = []
        self.lifetimes = Lifetimes(loop, self.table, link, self._tell)
        self.gone = 0
        self.reports = Reports(
            loop,
            STALL_SECONDS,
            self.table,
            self.lifetimes,
            Records(self.table, link, self._tell),
            Terminals(loop, link),
            link,
            self._gone,
        )

    def _tell(self, what: str, process: Process, time_ms: int) -> None:
        self.told.append((what, process.pid))

    def _gone(self) -> None:
        self.gone += 1

    def tell(
        self, pid: int = 1000, new: bool = True, input_fd: int = -1, control: int = -1, **record: Any
    ) -> Process:
        known = record.pop("facts", facts())
        made = self.processes.record(pid, facts=known.to_plain(), control=control >= 0, **record)
        given = ProcessDescriptors(self.processes.log(pid), input_fd, control)
        self.reports.on_process(made, given, new)
        return self.table.find(pid)

    def write(self, pid: int, data: bytes) -> None:
        self.processes.writers[pid].append(data, STDOUT, 1)

    def close(self) -> None:
        self.reports.close()
        self.lifetimes.close()
        for process in self.table:
            process.close()


@pytest_asyncio.fixture
async def scene(processes: Processes, loop: ManualLoop, link: Link) -> AsyncIterator[Scene]:
    made = Scene(processes, loop, link)
    yield made
    made.close()


def on_terminal(scene: Scene, **more: Any) -> tuple[Process, int]:
    """A process on a terminal, and the program's end of it."""
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    scene.processes.keep(slave)
    return scene.tell(input_fd=master, pty=SIZE, **more), slave


# A process comes


async def test_a_process_comes_with_what_is_needed_to_list_read_and_end_it(scene: Scene) -> None:
    process, slave = on_terminal(scene, facts=facts(name="mine"))
    assert (process.facts.name, process.size, process.exit) == ("mine", SIZE, None)
    scene.write(1000, b"output")
    assert process.log.head == 6
    assert process.input is not None
    process.input.write(b"x\n")
    assert os.read(slave, 10) == b"x\n"
    assert scene.table.total_spawned == 6


async def test_one_of_an_earlier_server_is_counted_already(scene: Scene) -> None:
    scene.tell(1000, new=False, exit=ended())
    scene.tell(1001, new=False)
    assert (scene.table.total_spawned, scene.table.active) == (5, 1)


async def test_all_that_it_came_with_is_closed_with_it(scene: Scene) -> None:
    before = descriptors()
    ours, theirs = socket.socketpair()
    process, _slave = on_terminal(scene, control=ours.detach(), facts=facts(watch=Watch(), ready=STARTING))
    scene.reports.on_exit(process.pid, ended())
    process.close()
    scene.processes.writers.pop(1000).close()
    theirs.close()
    assert descriptors() == before + 1, "the program's end of its terminal"


async def test_a_control_socket_that_nobody_reads_is_closed(scene: Scene) -> None:
    ours, theirs = socket.socketpair()
    number = ours.detach()
    with theirs:
        scene.tell(control=number)
        assert not is_open(number)


def damaged(path: Path) -> int:
    path.write_bytes(bytes(100_000))
    return os.open(path, os.O_RDWR)


@pytest.mark.parametrize("reason", ["damaged", "missing", "no descriptors"])
async def test_what_cannot_be_read_is_not_taken_over(
    scene: Scene, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing has been taken over then: who told it closes what came."""
    log = damaged(tmp_path / "damaged") if reason == "damaged" else scene.processes.log(1)
    reading, writing = os.pipe()
    ours, theirs = socket.socketpair()
    came = (log, writing, ours.fileno())
    given = ProcessDescriptors(-1 if reason == "missing" else log, *came[1:])
    if reason == "no descriptors":
        monkeypatch.setattr(os, "dup", _none_left)
    with pytest.raises((Unavailable, OSError)):
        scene.reports.on_process(ProcessRecord(1000, 1, 0, None, {}), given, new=True)
    assert all(map(is_open, came))
    assert (list(scene.table), scene.table.total_spawned) == ([], 5)
    for fd in (log, writing, reading):
        os.close(fd)
    ours.close()
    theirs.close()


def _none_left(_fd: int) -> int:
    raise OSError(24, "none left")


@pytest.mark.parametrize("stored", [{}, {"version": 99}, {**facts().to_plain(), "ports": 5}])
async def test_facts_that_cannot_be_read_keep_no_process_from_being_ended(
    scene: Scene, stored: dict[str, Any]
) -> None:
    record = scene.processes.record(1000, facts=stored)
    scene.reports.on_process(record, ProcessDescriptors(scene.processes.log(1000)), new=False)
    process = scene.table.find(1000)
    assert process.facts is UNKNOWN
    scene.lifetimes.kill(process, 9, escalate=True)
    assert scene.link.of("kill")


# The table is complete


async def test_when_all_are_there_clients_may_come(scene: Scene, loop: ManualLoop) -> None:
    process, slave = on_terminal(scene, new=False, facts=facts(linger_ms=5000))
    scene.tell(1001, new=False, exit=ended(end_time_ms=1))
    termios.tcsetwinsize(slave, (1, 1))
    assert not scene.reports.ready.is_set()
    scene.reports.on_ready()
    assert scene.reports.ready.is_set()
    assert termios.tcgetwinsize(slave) == (24, 80), "a repaint was under way"
    assert [each.pid for each in scene.table] == [1000], "the other one has ended long ago"
    loop.clock.let_pass(5.001)
    assert [each[1] for each in scene.link.of("kill")] == [process.pid], "nobody came back for it"


async def test_one_that_ends_before_all_are_there_expires_with_the_others(scene: Scene) -> None:
    scene.tell(1000, new=False, facts=facts(linger_ms=5000))
    scene.reports.on_exit(1000, ended(end_time_ms=1))
    scene.reports.on_ready()
    assert scene.link.asked == [("forget", 1000)]
    assert list(scene.table) == []


# Output


async def test_output_wakes_those_who_watch(scene: Scene) -> None:
    process = scene.tell()
    woken: list[int] = []
    scene.lifetimes.enter(process, "viewer", lambda: woken.append(process.log.head))
    scene.write(1000, b"abc")
    scene.reports.on_output(1000)
    assert woken == [3]


async def test_a_hold_that_moves_is_told_to_a_process_that_waits(scene: Scene) -> None:
    process = scene.tell()
    writer = scene.processes.writers[1000]
    hold = process.holds.enter(0)
    while room := writer.room():
        writer.append(bytes(room), STDOUT, 1)
    assert writer.block()
    hold.move(process.log.head)
    assert scene.link.of("moved") == [("moved", 1000)]


async def test_a_reader_that_was_passed_by_holds_nobody_up(scene: Scene) -> None:
    process = scene.tell()
    writer = scene.processes.writers[1000]
    process.holds.enter(0)
    while room := writer.room():
        writer.append(bytes(room), STDOUT, 1)
    writer.pass_by()
    scene.reports.on_output(1000)
    assert writer.room() == BURST_BYTES


# Ends


async def test_what_is_unknown_is_passed_over(scene: Scene) -> None:
    """Of a process that was discarded, what the supervisor had sent by then still comes."""
    scene.reports.on_output(4711)
    scene.reports.on_exit(4711, ended())
    assert (scene.link.asked, list(scene.table)) == ([], [])


async def test_an_end_is_told_after_what_it_was_found_out_by(scene: Scene) -> None:
    """The last line decides whether it was ready, and is seen before the end."""
    process = scene.tell(facts=facts(watch=Watch(line="^serving$"), ready=STARTING))
    seen: list[tuple[Any, Any]] = []
    scene.lifetimes.enter(process, "viewer", lambda: seen.append((process.facts.ready, process.exit)))
    scene.write(1000, b"serving\n")
    scene.reports.on_exit(1000, ended())
    assert seen == [(READY, None), (READY, ended())]
    assert scene.link.of("note")[0][2].ready == READY


async def test_the_line_that_is_waited_for_is_noted_when_it_comes(scene: Scene, loop: ManualLoop) -> None:
    process = scene.tell(facts=facts(watch=Watch(line="^serving$"), ready=STARTING))
    for text, known in ((b"not ", STARTING), (b"serving\nserv", STARTING), (b"ing\n", READY)):
        scene.write(1000, text)
        scene.reports.on_output(1000)
        assert process.facts.ready == known
    assert loop.clock.waiting == 0


async def test_what_a_program_tells_is_noted_for_the_next_server(scene: Scene) -> None:
    ours, theirs = socket.socketpair()
    watched = facts(watch=Watch(events=True, outside=False), ready=STARTING)
    process = scene.tell(control=ours.detach(), facts=watched)
    with theirs:
        theirs.send(b'{"event": "listen", "socket": "http", "port": 8080}\n')
        await turns()
        assert process.facts.ports == (Port("http", 8080, ""),)
        assert process.facts.ready == READY
        assert [each[0] for each in scene.link.asked] == ["note", "note"]


# The end of the supervisor, and of the server


@pytest.mark.parametrize("before", [True, False])
async def test_without_a_supervisor_nobody_waits_for_it(scene: Scene, before: bool) -> None:
    if not before:
        scene.reports.on_ready()
    for _ in range(2):
        scene.reports.on_supervisor_gone()
    assert (scene.gone, scene.reports.ready.is_set()) == (2, True)


async def test_at_the_server_s_end_no_timer_is_left(scene: Scene, loop: ManualLoop) -> None:
    scene.tell(facts=facts(watch=Watch(line="x"), ready=STARTING))
    _process, slave = on_terminal(scene, pid=1001)
    assert loop.clock.waiting == 1
    scene.close()
    loop.clock.let_pass(SETTLE_SECONDS + 1000)
    assert scene.link.asked == []
    assert is_open(slave)
