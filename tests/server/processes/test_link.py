"""The server's end of the control channel: descriptors that do not come or cannot be taken, and notices."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from mhnos_runtime.channel import OUTPUT, Channel, Message
from mhnos_runtime.errors import LimitReached, Unavailable
from mhnos_runtime.launch import ExitRecord, LaunchPlan, ProcessDescriptors, ProcessRecord, StartDescriptors
from mhnos_runtime.server.processes.link import SupervisorLink

#: What a start sends that is refused before anybody looks at it.
NO_FOLDER = StartDescriptors(0)
ENDED = ExitRecord(0, None, "exit", "", 1, 1, 1, 1, 1)


class Listener:
    """Takes what it is told, or raises `error`."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.taken: list[int] = []
        self.written: list[int] = []

    def on_process(self, record: ProcessRecord, descriptors: ProcessDescriptors, new: bool) -> None:
        del new
        if self.error is not None:
            raise self.error
        self.taken.append(record.pid)
        for fd in descriptors.sent():
            os.close(fd)

    def on_ready(self) -> None: ...
    def on_output(self, pid: int) -> None:
        self.written.append(pid)

    def on_exit(self, pid: int, exit_record: ExitRecord) -> None: ...
    def on_supervisor_gone(self) -> None: ...


class Scene:
    def __init__(self) -> None:
        ours, theirs = Channel.pair()
        self.supervisor = Channel(ours)
        self.listener = Listener()
        loop = asyncio.get_running_loop()
        self.link = SupervisorLink(Channel(theirs), loop)
        self.link.listen(self.listener, crowded=bool)

    async def said(self) -> dict[str, Any]:
        """What the link has sent next."""
        async with asyncio.timeout(20):
            while (message := self.supervisor.receive()) is None:  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.001)
        for fd in message.descriptors:
            os.close(fd)
        return message.body

    def tell(self, whole: bool, event: str, pid: int, ended: bool = False, **more: Any) -> list[int]:
        """Hand the link a message with a pipe, as if some descriptors had not come; return those."""
        record = ProcessRecord(pid, 1, 0, None, {}, exit=ENDED if ended else None)
        pipe = list(os.pipe())
        body = {"event": event, "record": record.to_dict(), **more}
        self.link._on_event(Message(b"", 0, body, list(pipe), whole))
        return pipe


@pytest_asyncio.fixture
async def scene() -> AsyncIterator[Scene]:
    made = Scene()
    yield made
    asyncio.get_running_loop().remove_reader(made.link._channel.fileno())
    for channel in (made.supervisor, made.link._channel):
        channel.close()


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("whole", "error"),
    [(False, None), (True, OSError(24, "none left")), (True, Unavailable("a log that is none"))],
)
async def test_a_start_that_cannot_be_taken_is_ended_and_refused(
    scene: Scene, whole: bool, error: Exception | None
) -> None:
    asked = asyncio.ensure_future(scene.link.spawn(LaunchPlan(("/bin/true",), {}), NO_FOLDER))
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


async def test_one_of_an_earlier_server_that_runs_is_ended_too(scene: Scene) -> None:
    pipe = scene.tell(False, "restored", 1000)
    assert await scene.said() == {"do": "discard", "pid": 1000}
    assert not any(map(is_open, pipe))


async def test_what_has_ended_before_is_kept_for_the_next_server(scene: Scene) -> None:
    """Nothing of it runs: its record and output stay where they are."""
    pipe = scene.tell(False, "restored", 1000, ended=True)
    scene.link.forget(7)
    assert await scene.said() == {"do": "forget", "pid": 7}
    assert not any(map(is_open, pipe))
    assert scene.listener.taken == []


@pytest.mark.parametrize(("crowded", "seen"), [(False, [1]), (True, [1, 2, 3])])
async def test_notices_do_not_wait_for_one_turn_of_large_output_each(
    scene: Scene, crowded: bool, seen: list[int]
) -> None:
    """An echo's notice stood behind those of eight floods, and each of these let a turn of them in between.
    Where nothing large waits, one message a turn spares the call that finds no other."""
    scene.link.listen(scene.listener, crowded=lambda: crowded)
    for pid in (1, 2, 3):
        scene.supervisor.notify(OUTPUT, pid)
    scene.link._readable()
    assert scene.listener.written == seen
