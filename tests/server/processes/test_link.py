"""The server's end of the control channel, over a real one: requests, answers, reports, and what can fail."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest
import pytest_asyncio

from mhnos_runtime.channel import (
    ALIVE,
    HIGH_WATER_MESSAGES,
    MOVED,
    OUTPUT,
    RETRY_SECONDS,
    TYPED,
    Disconnected,
    Message,
)
from mhnos_runtime.errors import InvalidRequest, LimitReached, MhnosError, Unavailable
from mhnos_runtime.launch import (
    Hello,
    LaunchPlan,
    OtherVersion,
    StartDescriptors,
)
from mhnos_runtime.process.facts import Found
from mhnos_runtime.process.ready import Readiness
from mhnos_runtime.server.processes.link import SupervisorLink
from tests.server.processes.scene import PLAN, ManualLoop, is_open, turns
from tests.server.processes.supervised import ENDED, GONE, NO_FOLDER, Scene


@pytest_asyncio.fixture
async def silent(loop: ManualLoop) -> AsyncIterator[Scene]:
    """Nobody listens yet."""
    made = Scene(loop)
    yield made
    made.link.close()
    for channel in (made.supervisor, made.channel):
        channel.close()


@pytest_asyncio.fixture
async def scene(silent: Scene) -> Scene:
    silent.listen()
    return silent


# The hello

HELLO = Hello("s", 7, {}, "", None, "/bin", "", "", (3, 4))


@pytest.mark.parametrize("early", [True, False])
async def test_the_hello_comes_first_and_alone(silent: Scene, early: bool) -> None:
    waiting = asyncio.create_task(silent.link.hello())
    if not early:
        await turns()
    silent.supervisor.send(HELLO.to_dict())
    silent.supervisor.send({"event": "ready"})
    assert await waiting == HELLO
    silent.listen()
    assert await silent.told(1) == [("ready",)]


@pytest.mark.parametrize("early", [True, False])
async def test_a_supervisor_that_goes_before_its_hello(silent: Scene, early: bool) -> None:
    waiting = asyncio.create_task(silent.link.hello())
    if not early:
        await turns()
    silent.supervisor.close()
    with pytest.raises(Disconnected):
        await waiting


async def test_a_supervisor_of_another_version(silent: Scene) -> None:
    silent.supervisor.send({**HELLO.to_dict(), "version": 0})
    with pytest.raises(OtherVersion):
        await silent.link.hello()


async def test_a_server_that_ends_before_the_hello_watches_the_channel_no_longer(silent: Scene) -> None:
    waiting = asyncio.create_task(silent.link.hello())
    await turns()
    waiting.cancel()
    await turns()
    assert not asyncio.get_running_loop().remove_reader(silent.channel.fileno())


# Requests

FOUND = Found(ready=Readiness("ready"))
REQUESTS: list[tuple[Callable[[SupervisorLink], None], dict[str, Any]]] = [
    (
        lambda link: link.kill(7, 15, "idle", True),
        {"do": "kill", "pid": 7, "signal": 15, "reason": "idle", "escalate": True},
    ),
    (lambda link: link.close_stdin(7), {"do": "close_stdin", "pid": 7}),
    (lambda link: link.size(7, 80, 24), {"do": "size", "pid": 7, "columns": 80, "rows": 24}),
    (lambda link: link.note(7, FOUND), {"do": "note", "pid": 7, "found": FOUND.to_plain()}),
    (lambda link: link.forget(7), {"do": "forget", "pid": 7}),
    (lambda link: link.discard(7), {"do": "discard", "pid": 7}),
    (lambda link: link.token(None), {"do": "token", "token": None}),
]
NOTICES: list[tuple[Callable[[SupervisorLink], None], bytes, int]] = [
    (SupervisorLink.alive, ALIVE, 0),
    (lambda link: link.moved(7), MOVED, 7),
    (lambda link: link.typed(7), TYPED, 7),
]


async def test_requests_and_notices_arrive_in_order(scene: Scene) -> None:
    for request, _body in REQUESTS:
        request(scene.link)
    for notice, _kind, _pid in NOTICES:
        notice(scene.link)
    for _request, body in REQUESTS:
        assert await scene.said() == body
    for _notice, kind, pid in NOTICES:
        message = await scene.message()
        assert (message.kind, message.pid) == (kind, pid)


# Starts


async def test_a_start_sends_its_descriptors_and_returns_the_pid(scene: Scene) -> None:
    reading, writing = os.pipe()
    waiting = scene.spawn(given=StartDescriptors(reading, (writing,)))
    message = await scene.message()
    assert LaunchPlan.from_request(message.body["plan"]) == PLAN
    os.write(message.descriptors[1], b"x")
    assert os.read(message.descriptors[0], 10) == b"x"
    scene.report("spawned", 1000, request=message.body["request"])
    assert await waiting == 1000
    assert scene.listener.told == [("process", 1000, True)]
    for fd in (reading, writing, *message.descriptors):
        os.close(fd)


async def test_answers_find_their_requests_in_any_order(scene: Scene) -> None:
    waiting = [scene.spawn() for _ in range(3)]
    numbers = [(await scene.said())["request"] for _ in waiting]
    for index in (2, 0, 1):
        scene.report("spawned", 1000 + index, request=numbers[index])
    assert await asyncio.gather(*waiting) == [1000, 1001, 1002]
    scene.report("spawned", 1003, request=numbers[0])
    assert (await scene.told(4))[3] == ("process", 1003, True), "an answer that comes twice is to nobody"


async def test_no_two_servers_number_their_starts_alike(scene: Scene) -> None:
    """An answer to an earlier server's start says that there is a process, and answers nobody here."""
    waiting = scene.spawn()
    number = (await scene.said())["request"]
    assert number >> 32 == os.getpid()
    scene.report("spawned", 1000, request=((os.getpid() - 1) << 32) + 1)
    assert await scene.told(1) == [("process", 1000, True)]
    assert not waiting.done()
    scene.report("spawned", 1001, request=number)
    assert await waiting == 1001


async def test_a_refusal_is_raised_as_the_supervisor_said_it(scene: Scene) -> None:
    waiting = scene.spawn()
    number = (await scene.said())["request"]
    refusal = {"message": "no", "code": "forbidden-plan", "hint": "ask", "retry": True}
    scene.supervisor.send({"event": "refused", "request": number, **refusal})
    with pytest.raises(MhnosError, match="no") as refused:
        await waiting
    error = refused.value
    assert (error.code, error.hint, error.retry) == ("forbidden-plan", "ask", True)


async def test_a_plan_that_fits_into_no_message_is_refused_here(scene: Scene) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await scene.link.spawn(LaunchPlan(("/bin/echo", "x" * 1_000_000), {}), NO_FOLDER)
    assert refused.value.code == "too-large"
    assert scene.link._spawning == {}
    scene.link.forget(1)
    assert await scene.said() == {"do": "forget", "pid": 1}


async def test_a_start_that_nobody_waits_for_any_more_is_taken_all_the_same(scene: Scene) -> None:
    waiting = scene.spawn()
    number = (await scene.said())["request"]
    waiting.cancel()
    await turns()
    scene.report("spawned", 1000, request=number)
    assert await scene.told(1) == [("process", 1000, True)]
    assert scene.link._spawning == {}


@pytest.mark.parametrize(("whole", "error"), [(False, None), (True, OSError(24, "none left"))])
async def test_a_start_that_cannot_be_taken_is_ended_and_refused(
    scene: Scene, whole: bool, error: Exception | None
) -> None:
    asked = scene.spawn()
    request = (await scene.said())["request"]
    scene.listener.error = error
    pipe = scene.tell(whole, "spawned", 1000, request=request)
    assert await scene.said() == {"do": "discard", "pid": 1000}
    with pytest.raises(LimitReached, match="no descriptors") as refused:
        await asked
    assert refused.value.retry
    assert not any(map(is_open, pipe))
    scene.listener.error = None
    scene.tell(True, "restored", 1001)
    assert scene.listener.taken == [1001]


async def test_a_start_is_refused_with_the_listener_s_own_reason(scene: Scene) -> None:
    """A log of another layout was reported as a lack of descriptors."""
    asked = scene.spawn()
    request = (await scene.said())["request"]
    scene.listener.error = Unavailable("a log that is none")
    pipe = scene.tell(True, "spawned", 1000, request=request)
    assert await scene.said() == {"do": "discard", "pid": 1000}
    with pytest.raises(Unavailable, match="a log that is none"):
        await asked
    assert not any(map(is_open, pipe))


async def test_one_of_an_earlier_server_that_runs_is_ended_too(scene: Scene) -> None:
    pipe = scene.tell(False, "restored", 1000)
    assert await scene.said() == {"do": "discard", "pid": 1000}
    assert not any(map(is_open, pipe))


async def test_what_has_ended_before_is_kept_for_the_next_server(scene: Scene) -> None:
    """Nothing of it runs: its record and output stay where they are."""
    pipe = scene.tell(False, "restored", 1000, exited=True)
    scene.link.forget(7)
    assert await scene.said() == {"do": "forget", "pid": 7}
    assert not any(map(is_open, pipe))
    assert scene.listener.taken == []


# Reports


async def test_reports_are_passed_on_in_order(scene: Scene) -> None:
    scene.report("restored", 1000)
    scene.supervisor.notify(OUTPUT, 1000)
    scene.supervisor.send({"event": "exited", "pid": 1000, "exit": ENDED.to_dict()})
    scene.supervisor.send({"event": "ready"})
    expected = [("process", 1000, False), ("output", 1000), ("exit", 1000, ENDED), ("ready",)]
    assert await scene.told(4) == expected


async def test_what_a_newer_supervisor_reports_leaves_nothing_open(scene: Scene) -> None:
    pipe = list(os.pipe())
    scene.link._on_event(Message(b"", 0, {"event": "unheard-of"}, list(pipe)))
    assert not any(map(is_open, pipe))
    assert scene.listener.told == []


@pytest.mark.parametrize("crowded", [True, False])
async def test_one_message_a_turn_unless_large_output_waits(scene: Scene, crowded: bool) -> None:
    """An echo's notice stood behind those of eight floods, and each of these let a turn of them in between.
    Where nothing large waits, one message a turn spares the call that finds no other."""
    scene.crowded = crowded
    for pid in range(3):
        scene.supervisor.notify(OUTPUT, pid)
    scene.link._readable()
    assert len(scene.listener.told) == (3 if crowded else 1)
    assert await scene.told(3) == [("output", pid) for pid in range(3)]
    scene.link._readable()
    assert len(scene.listener.told) == 3, "and none where there is none"


# What cannot be sent at once


def fill(scene: Scene) -> int:
    """How many requests were made until some wait."""
    count = 0
    while len(scene.channel.pending) < 3:
        scene.link.forget(count)
        count += 1
    return count


async def test_what_waits_is_sent_in_order_when_there_is_room(scene: Scene) -> None:
    count = fill(scene)
    assert [(await scene.said())["pid"] for _ in range(count)] == list(range(count))
    assert not asyncio.get_running_loop().remove_writer(scene.channel.fileno()), "nothing waits"


async def test_what_is_noted_of_a_process_while_messages_wait_is_one_message(scene: Scene) -> None:
    """A client that renames without end would fill the channel, and this server seem to hang."""
    count = fill(scene)
    for number in range(1000):
        scene.link.note(1000, Found(name=f"name-{number}"))
        scene.link.note(1001, Found(name=f"name-{number}"))
    scene.link.note(1000, Found(ready=Readiness("ready")))
    scene.link.forget(1001)
    scene.link.note(1002, Found(name=None))
    assert len(scene.channel.pending) == 4
    assert [(await scene.said())["pid"] for _ in range(count + 1)] == [*range(count), 1001]
    said = [await scene.said(), await scene.said()]
    assert said == [
        {"do": "note", "pid": 1000, "found": {"ready": {"state": "ready", "reason": ""}, "name": "name-999"}},
        {"do": "note", "pid": 1002, "found": {"name": None}},
    ]
    scene.link.note(1000, Found(name="last"))
    assert await scene.said() == {"do": "note", "pid": 1000, "found": {"name": "last"}}


def is_congested(scene: Scene) -> bool:
    return scene.link.congested


async def test_who_sends_more_than_is_taken_is_told_when_there_is_room(scene: Scene) -> None:
    fill(scene)
    while scene.link.waiting < HIGH_WATER_MESSAGES:
        assert not scene.link.congested
        before = scene.link.waiting
        scene.link.forget(1000)
        assert scene.link.waiting == before + 1
    assert is_congested(scene)
    told: list[int] = []
    scene.link.when_room(lambda: told.append(1))
    scene.link.when_room(lambda: told.append(2))
    await turns()
    assert told == []
    while not told:
        await scene.said()
    assert told == [1, 2]
    assert not is_congested(scene)
    while scene.link.waiting:
        await scene.said()
    assert told == [1, 2]


async def test_a_start_that_waits_keeps_duplicates_of_its_descriptors(scene: Scene) -> None:
    count = fill(scene)
    reading, writing = os.pipe()
    waiting = scene.spawn(given=StartDescriptors(reading))
    await turns()
    os.close(reading)
    for _ in range(count):
        await scene.said()
    message = await scene.message()
    os.write(writing, b"x")
    assert os.read(message.descriptors[0], 10) == b"x"
    waiting.cancel()
    for fd in (writing, *message.descriptors):
        os.close(fd)


async def test_a_start_that_has_to_wait_and_cannot_fails(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(scene)
    before = len(scene.channel.pending)
    monkeypatch.setattr(os, "dup", _none_left)
    with pytest.raises(OSError, match="none left"):
        await scene.link.spawn(PLAN, NO_FOLDER)
    assert (len(scene.channel.pending), scene.link._spawning) == (before, {})


def _none_left(_fd: int) -> int:
    raise OSError(errno.EMFILE, "none left")


class Refusing:
    """A socket whose kernel refuses to send for a while."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.refused = 0

    def send(self, _data: bytes) -> int:
        self.refused += 1
        raise OSError(errno.ETOOMANYREFS, "too many descriptors are on their way")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


async def test_what_the_kernel_refuses_for_a_while_is_tried_again(scene: Scene) -> None:
    """The socket is writable all the time then: to wait for that would turn the event loop without end."""
    real = scene.channel._sock
    refusing: Any = Refusing(real)
    scene.channel._sock = refusing
    for pid in range(3):
        scene.link.forget(pid)
    assert (refusing.refused, scene.loop.clock.waiting) == (1, 1)
    assert not asyncio.get_running_loop().remove_writer(real.fileno())
    scene.loop.clock.let_pass(RETRY_SECONDS)
    assert (refusing.refused, scene.loop.clock.waiting) == (2, 1)
    scene.channel._sock = real
    scene.loop.clock.let_pass(RETRY_SECONDS)
    assert [(await scene.said())["pid"] for _ in range(3)] == [0, 1, 2]
    assert scene.loop.clock.waiting == 0


# The end of the supervisor, and of the server


async def test_a_supervisor_that_goes_leaves_no_start_waiting(scene: Scene) -> None:
    waiting = [scene.spawn() for _ in range(2)]
    await turns()
    waiting[0].cancel()
    scene.supervisor.close()
    with pytest.raises(Unavailable, match="stopping"):
        await waiting[1]
    assert await scene.told(1) == [GONE]
    with pytest.raises(Unavailable, match="stopping"):
        await scene.link.spawn(PLAN, NO_FOLDER)
    assert scene.link._spawning == {}


async def test_a_start_that_was_answered_before_the_end_is_started(scene: Scene) -> None:
    scene.crowded = True
    waiting = scene.spawn()
    number = (await scene.said())["request"]
    scene.report("spawned", 1000, request=number)
    scene.supervisor.close()
    scene.link._readable()
    assert scene.listener.told == [("process", 1000, True), GONE]
    assert await waiting == 1000


async def test_a_supervisor_that_goes_is_no_error_for_who_sends(scene: Scene) -> None:
    scene.supervisor.close()
    for send in (*(row[0] for row in REQUESTS), *(row[0] for row in NOTICES)):
        send(scene.link)
    assert set(scene.listener.told) == {GONE}


async def test_a_supervisor_that_goes_while_requests_wait_turns_no_loop(scene: Scene) -> None:
    """The socket of one that is gone is writable: the server turned on it until its end."""
    fill(scene)
    scene.supervisor.close()
    await scene.told(1)
    for watched in ("remove_reader", "remove_writer"):
        assert not getattr(asyncio.get_running_loop(), watched)(scene.channel.fileno())


async def test_after_the_server_s_end_nothing_is_told(scene: Scene) -> None:
    """What came while the last tasks ended was passed on to processes whose logs were closed by then."""
    fill(scene)
    scene.supervisor.notify(OUTPUT, 1000)
    scene.link.close()
    scene.link.close()
    await turns()
    assert scene.listener.told == []
    assert not asyncio.get_running_loop().remove_writer(scene.channel.fileno())


async def test_after_the_server_s_end_nothing_is_tried_again(scene: Scene) -> None:
    scene.channel._sock = cast(Any, Refusing(scene.channel._sock))
    scene.link.forget(1)
    scene.link.close()
    assert scene.loop.clock.waiting == 0
