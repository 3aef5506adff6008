"""How it is found out that a process serves: real logs, ports and control sockets, and a clock for
time-outs."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from mhnos_runtime.bounds import TOLD_BYTES
from mhnos_runtime.launch import STDERR, STDOUT
from mhnos_runtime.output.layout import BURST_BYTES
from mhnos_runtime.process.facts import Found
from mhnos_runtime.process.ready import Port, Readiness, Watch
from mhnos_runtime.process.table import Process
from mhnos_runtime.server.processes import readiness
from mhnos_runtime.server.processes.readiness import Watchers
from tests.output.clock import Alarm
from tests.server.processes.scene import ManualLoop, Processes, ended, is_open, turns

STARTING = Readiness("starting")
READY = Readiness("ready")
ENDED = Readiness("failed", "it ended before it was ready")
TURN_BYTES = 4 * BURST_BYTES


class Scene:
    def __init__(self, processes: Processes, loop: Any) -> None:
        self.processes = processes
        self.loop: ManualLoop = loop
        self.watchers = Watchers(loop, self._note)
        self.noted: list[Found] = []
        self.fails = False

    def _note(self, process: Process, found: Found) -> None:
        if self.fails:
            raise ZeroDivisionError
        process.facts = process.facts.with_found(found)
        self.noted.append(found)

    def begin(
        self,
        watch: Watch | None,
        control: int = -1,
        pid: int = 1000,
        state: Readiness | None = STARTING,
        **more: Any,
    ) -> Process:
        started = {"start_time_ms": time.time_ns() // 1_000_000, "os_pid": os.getpid()}
        process = self.processes.make(pid, record=started, watch=watch, ready=state, **more)
        self.watchers.begin(process, control)
        return process

    def write(self, data: bytes, stream: int = STDOUT, pid: int = 1000) -> None:
        writer = self.processes.writers[pid]
        for start in range(0, len(data), BURST_BYTES):
            writer.append(data[start : start + BURST_BYTES], stream, 1)

    @property
    def states(self) -> list[object]:
        return [found.ready for found in self.noted]


@pytest_asyncio.fixture
async def scene(processes: Processes, loop: ManualLoop) -> AsyncIterator[Scene]:
    made = Scene(processes, loop)
    yield made
    made.watchers.close()
    await turns()


async def settled(process: Process) -> Readiness | None:
    """How it is, once that is known."""
    async with asyncio.timeout(20):
        while process.facts.ready == STARTING:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.001)
    return process.facts.ready


# Nothing to look for


async def test_where_there_is_nothing_to_watch_nobody_watches(scene: Scene) -> None:
    ours, theirs = socket.socketpair()
    number = ours.detach()
    with theirs:
        scene.begin(None, number, state=None)
        assert not is_open(number)
    scene.begin(None, pid=1001, state=None)
    for pid in (1000, 1001, 1002):
        scene.watchers.look(pid)
        scene.watchers.ended(pid)
    assert (scene.noted, scene.loop.clock.waiting) == ([], 0)


async def test_one_that_was_ready_under_an_earlier_server_is_not_looked_at(scene: Scene) -> None:
    scene.begin(Watch(line="x", port=1), state=READY)
    scene.write(b"x\n")
    scene.watchers.look(1000)
    scene.watchers.ended(1000)
    assert (scene.noted, scene.loop.clock.waiting) == ([], 0)


@pytest.mark.parametrize("told", [b"serving\n", b"\n"])
async def test_one_that_has_ended_before_is_looked_at_once(scene: Scene, told: bytes) -> None:
    """It stayed in memory until the server ended, however soon it was forgotten."""
    process = scene.processes.make(
        ended_as=ended(), watch=Watch(line="serving", port=1, url="x"), ready=STARTING
    )
    scene.write(told)
    scene.watchers.begin(process, -1)
    assert scene.states == [READY if told == b"serving\n" else ENDED]
    assert (scene.watchers._watchers, scene.loop.clock.waiting) == ({}, 0)


# Time


async def test_what_is_not_ready_in_time_has_failed(scene: Scene) -> None:
    process = scene.begin(Watch(line="never", timeout_ms=5000))
    scene.loop.clock.let_pass(4.9)
    assert scene.noted == []
    scene.loop.clock.let_pass(0.2)
    assert process.facts.ready == Readiness("failed", "not ready after 5 s")
    scene.write(b"never\n")
    scene.watchers.look(1000)
    scene.watchers.ended(1000)
    assert len(scene.noted) == 1


async def test_the_time_counts_from_the_start_and_not_from_the_server_s(scene: Scene) -> None:
    process = scene.processes.make(watch=Watch(line="never", timeout_ms=5000), ready=STARTING)
    scene.watchers.begin(process, -1)
    scene.loop.clock.let_pass(0.001)
    assert process.facts.ready == Readiness("failed", "not ready after 5 s")


# Lines


async def test_a_line_is_found_when_it_is_whole(scene: Scene) -> None:
    process = scene.begin(Watch(line="^serving$"))
    for data, stream in ((b"ser", STDOUT), (b"x", STDERR), (b"ving", STDOUT)):
        scene.write(data, stream)
        scene.watchers.look(1000)
    assert scene.noted == []
    scene.write(b"\n")
    scene.watchers.look(1000)
    assert (process.facts.ready, scene.loop.clock.waiting) == (READY, 0)


async def test_what_was_written_before_the_server_came_counts(scene: Scene) -> None:
    process = scene.processes.make(watch=Watch(line="^serving$"), ready=STARTING)
    scene.write(b"serving\n")
    scene.watchers.begin(process, -1)
    assert process.facts.ready == READY


async def test_it_asks_to_be_woken_by_the_next_output(scene: Scene) -> None:
    process = scene.begin(Watch(line="^serving$"))
    assert scene.processes.writers[1000].append(b"a", STDOUT, 1)
    scene.watchers.look(1000)
    assert scene.processes.writers[1000].append(b"b", STDOUT, 1)
    assert process.facts.ready == STARTING


async def test_what_comes_while_it_asks_is_not_missed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    process = scene.begin(Watch(line="^serving$"))
    park = process.log.park

    def busy(offset: int) -> bool:
        monkeypatch.undo()
        scene.write(b"serving\n")
        return park(offset)

    monkeypatch.setattr(process.log, "park", busy)
    scene.watchers.look(1000)
    assert process.facts.ready == READY


async def test_what_was_overwritten_joins_nothing(scene: Scene) -> None:
    process = scene.begin(Watch(line="^serving$"))
    scene.write(b"ser")
    scene.watchers.look(1000)
    scene.write(bytes(200_000) + b"ving\n")
    scene.watchers.look(1000)
    assert process.facts.ready == STARTING
    scene.write(b"serving\n")
    scene.watchers.look(1000)
    assert process.facts.ready == READY


async def test_others_get_their_turn_while_much_is_searched(scene: Scene) -> None:
    scene.processes.retention_bytes = 4 * TURN_BYTES
    process = scene.processes.make(watch=Watch(line="^serving$"), ready=STARTING)
    scene.write((b"x" * 1023 + b"\n") * (3 * TURN_BYTES // 1024) + b"serving\n")
    looked = 0
    scene.watchers.begin(process, -1)
    while process.facts.ready == STARTING:
        looked += 1
        await turns(1)
    assert looked >= 3


async def test_output_that_comes_meanwhile_begins_no_second_search(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each wake-up began another one, that took turns of its own from the others."""
    scene.processes.retention_bytes = 4 * TURN_BYTES
    scene.begin(Watch(line="^serving$"))
    scene.write(b"x\n" * (2 * TURN_BYTES // 2))
    due: list[Alarm] = []

    def call_soon(action: Callable[[], None]) -> Alarm:
        due.append(Alarm(0, action))
        return due[-1]

    monkeypatch.setattr(scene.loop, "call_soon", call_soon, raising=False)
    for _ in range(5):
        scene.watchers.look(1000)
    assert len(due) == 1


async def test_a_search_that_is_due_ends_with_the_watcher(scene: Scene) -> None:
    scene.processes.retention_bytes = 4 * TURN_BYTES
    process = scene.begin(Watch(line="^serving$"))
    scene.write(b"x\n" * (TURN_BYTES // 2) + b"serving\n")
    scene.watchers.look(1000)
    scene.watchers.close()
    process.close()
    await turns()
    assert scene.noted == []


async def test_the_last_words_count_while_a_search_is_due(scene: Scene) -> None:
    scene.processes.retention_bytes = 4 * TURN_BYTES
    process = scene.begin(Watch(line="^serving$"))
    scene.write(b"x\n" * (TURN_BYTES // 2) + b"serving\n")
    scene.watchers.look(1000)
    scene.watchers.ended(1000)
    assert process.facts.ready == READY
    await turns()
    assert len(scene.noted) == 1


async def test_a_line_in_another_network_does_for_a_port_that_is_not_seen(scene: Scene) -> None:
    process = scene.begin(Watch(line="serving", outside=False))
    scene.watchers.ended(1000)
    assert process.facts.ready == ENDED


# Ports


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "_FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(readiness, "_LONGEST_PAUSE_SECONDS", 0.002)


def unused() -> tuple[socket.socket, int]:
    """A port on which nobody listens yet."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock, sock.getsockname()[1]


@pytest.mark.usefixtures("_impatient")
async def test_a_port_is_knocked_at_until_it_opens(scene: Scene) -> None:
    sock, number = unused()
    with sock:
        process = scene.begin(Watch(port=number))
        await turns(20)
        assert process.facts.ready == STARTING
        sock.listen()
        assert await settled(process) == READY
        await turns()
        assert (len(scene.noted), scene.loop.clock.waiting) == (1, 0)


class Answers:
    """An HTTP server that gives one answer after the other, and the last one for ever."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/health"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(self._answers[min(self.asked, len(self._answers) - 1)])
        self.asked += 1
        writer.close()


OK = b"HTTP/1.1 204 No Content\r\n\r\n"
SICK = b"HTTP/1.1 503 Sick\r\nContent-Length: 0\r\n\r\n"
MOVED = b"HTTP/1.1 302 Found\r\nLocation: /ok\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.usefixtures("_impatient")
async def test_an_address_is_asked_until_it_answers_well(scene: Scene) -> None:
    answers = Answers(SICK, MOVED, b"no HTTP\r\n\r\n", b"", OK)
    async with answers as url:
        process = scene.begin(Watch(url=url))
        assert await settled(process) == READY
        assert answers.asked == 5
        await turns()


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://[", "no-such-scheme://x"])
async def test_an_address_that_never_answers_fails_by_time(scene: Scene, url: str) -> None:
    process = scene.begin(Watch(url=url, timeout_ms=5000))
    await turns(20)
    assert process.facts.ready == STARTING
    scene.loop.clock.let_pass(5)
    assert process.facts.ready == Readiness("failed", "not ready after 5 s")


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("end", ["ended", "close", "time"])
async def test_nobody_knocks_any_more_when_it_is_over(scene: Scene, end: str) -> None:
    sock, number = unused()
    with sock:
        scene.begin(Watch(port=number))
        await turns(20)
        if end == "ended":
            scene.watchers.ended(1000)
        elif end == "close":
            scene.watchers.close()
        else:
            scene.loop.clock.let_pass(100)
        await turns()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert len(scene.noted) == (end != "close")


# What it tells


def event(name: str, port: int) -> bytes:
    return json.dumps({"event": "listen", "socket": name, "port": port}).encode() + b"\n"


INSIDE = Watch(events=True, outside=False)


async def test_what_it_tells_is_noted_and_then_taken(scene: Scene) -> None:
    ours, theirs = socket.socketpair()
    process = scene.begin(INSIDE, ours.detach())
    with theirs:
        theirs.send(event("http", 8080)[:20])
        await turns()
        assert scene.noted == []
        theirs.send(event("http", 8080)[20:] + event("http", 8080) + event("other", 1))
        await turns()
        assert process.facts.ports == (Port("http", 8080, ""), Port("other", 1, ""))
        assert scene.states[1:] == [READY]
        theirs.send(event("http", 8080) + b"nonsense\n")
        await turns()
        assert len(scene.noted) == 2, "nothing new"
        theirs.send(event("http", 9090))
        await turns()
        assert process.facts.ports[0] == Port("http", 9090, "")


async def test_what_was_not_noted_is_there_for_the_next_server(scene: Scene) -> None:
    ours, theirs = socket.socketpair()
    kept = ours.dup()
    scene.fails = True
    process = scene.begin(INSIDE, ours.detach())
    with theirs, kept:
        theirs.send(event("http", 8080))
        raised: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: raised.append(context))
        await turns()
        assert raised
        scene.watchers.close()
        assert kept.recv(1000) == event("http", 8080)
    assert process.facts.ready == STARTING


async def test_a_program_that_tells_without_end_is_not_listened_to(scene: Scene) -> None:
    ours, theirs = socket.socketpair()
    number = ours.detach()
    scene.begin(INSIDE, number)
    theirs.setblocking(False)
    sent = blocked = 0
    with theirs:
        while blocked < 3 and sent < 10 * TOLD_BYTES:
            try:
                sent += theirs.send(b"x" * 10_000)
                blocked = 0
            except BlockingIOError:
                blocked += 1
                await turns()
        assert blocked == 3
        assert sent > TOLD_BYTES
        scene.watchers.ended(1000)
    assert not is_open(number)


@pytest.mark.parametrize("reset", [True, False])
async def test_a_program_that_closes_its_end_is_not_looked_at_again(scene: Scene, reset: bool) -> None:
    if reset:
        listener = socket.create_server(("127.0.0.1", 0))
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
        listener.close()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    else:
        ours, theirs = socket.socketpair()
    number = ours.detach()
    scene.begin(INSIDE, number)
    theirs.close()
    await turns()
    assert not asyncio.get_running_loop().remove_reader(number)
    assert is_open(number), "it is closed with the process"


async def test_what_it_told_up_to_its_end_counts(scene: Scene) -> None:
    ours, theirs = socket.socketpair()
    number = ours.detach()
    process = scene.begin(INSIDE, number)
    with theirs:
        theirs.send(event("http", 8080))
        scene.watchers.ended(1000)
    assert (process.facts.ready, [each.port for each in process.facts.ports]) == (READY, [8080])
    assert not is_open(number)
    scene.watchers.ended(1000)
    assert len(scene.noted) == 2


async def test_a_port_that_the_machine_reaches_has_an_address(scene: Scene) -> None:
    """It is looked up, since a program may listen on another one than it says, or on none."""
    ours, theirs = socket.socketpair()
    with theirs, socket.create_server(("0.0.0.0", 0)) as sock:
        number = sock.getsockname()[1]
        nowhere, free = unused()
        with nowhere:
            process = scene.begin(Watch(events=True), ours.detach())
            theirs.send(event("http", number) + event("other", free))
            await turns()
            assert process.facts.ports == (
                Port("http", number, "127.0.0.1", f"http://127.0.0.1:{number}"),
                Port("other", free, ""),
            )
