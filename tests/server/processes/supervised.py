"""A link to a supervisor that the test plays, over a real channel, with a listener that keeps what
it is told."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from mhnos_runtime.channel import Channel, Message
from mhnos_runtime.launch import (
    ExitRecord,
    LaunchPlan,
    ProcessDescriptors,
    ProcessRecord,
    StartDescriptors,
)
from mhnos_runtime.server.processes.link import SupervisorLink
from tests.server.processes.scene import PLAN, ManualLoop, ended

#: What a start sends that is refused before anybody looks at it.
NO_FOLDER = StartDescriptors(0)
ENDED = ended()
GONE = ("gone",)


class Listener:
    """Notes what it is told; takes descriptors over, or raises `error`."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.told: list[tuple[Any, ...]] = []

    @property
    def taken(self) -> list[int]:
        return [each[1] for each in self.told if each[0] == "process"]

    def on_process(self, record: ProcessRecord, descriptors: ProcessDescriptors, new: bool, by: str) -> None:
        if self.error is not None:
            raise self.error
        self.told.append(("process", record.pid, new))
        for fd in descriptors.sent():
            os.close(fd)

    def on_ready(self) -> None:
        self.told.append(("ready",))

    def on_output(self, pid: int) -> None:
        self.told.append(("output", pid))

    def on_exit(self, pid: int, exit_record: ExitRecord) -> None:
        self.told.append(("exit", pid, exit_record))

    def on_supervisor_gone(self) -> None:
        self.told.append(GONE)


class Scene:
    """A link whose timers ring when the test says so, and the supervisor's end of its channel."""

    def __init__(self, loop: Any) -> None:
        ours, theirs = Channel.pair()
        self.loop: ManualLoop = loop
        self.supervisor = Channel(ours)
        self.channel = Channel(theirs)
        self.listener = Listener()
        self.crowded = False
        self.link = SupervisorLink(self.channel, loop)

    def listen(self) -> None:
        self.link.listen(self.listener, crowded=lambda: self.crowded)

    async def said(self) -> dict[str, Any]:
        """What the link has sent next."""
        message = await self.message()
        for fd in message.descriptors:
            os.close(fd)
        return message.body

    async def message(self) -> Message:
        async with asyncio.timeout(20):
            while (message := self.supervisor.receive()) is None:  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.001)
        return message

    async def told(self, count: int) -> list[tuple[Any, ...]]:
        """What the listener was told, once that is so much."""
        async with asyncio.timeout(20):
            while len(self.listener.told) < count:  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.001)
        return self.listener.told

    def tell(self, whole: bool, event: str, pid: int, exited: bool = False, **more: Any) -> list[int]:
        """Hand the link a message with a pipe, as if some descriptors had not come; return those."""
        record = ProcessRecord(pid, 1, 0, None, {}, exit=ENDED if exited else None)
        pipe = list(os.pipe())
        body = {"event": event, "record": record.to_dict(), **more}
        self.link._on_event(Message(b"", 0, body, list(pipe), whole))
        return pipe

    def report(self, event: str, pid: int, **more: Any) -> None:
        """Send that a process is there, with a pipe for its log and input."""
        pipe = os.pipe()
        record = ProcessRecord(pid, 1, 0, None, {})
        self.supervisor.send({"event": event, "record": record.to_dict(), **more}, pipe)
        for fd in pipe:
            os.close(fd)

    def spawn(self, plan: LaunchPlan = PLAN, given: StartDescriptors = NO_FOLDER) -> asyncio.Task[int]:
        return asyncio.create_task(self.link.spawn(plan, given))
