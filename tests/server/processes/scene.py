"""Doubles for time, the supervisor's link and requests; processes on real logs, pipes and terminals."""

from __future__ import annotations

import asyncio
import os
import pty
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from mhnos_runtime import config
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.launch import ExitRecord, Hello, LaunchPlan, ProcessRecord, StartDescriptors
from mhnos_runtime.observe import logs
from mhnos_runtime.observe.limit import Limiter
from mhnos_runtime.output import LogReader, LogWriter
from mhnos_runtime.process.facts import UNKNOWN, ProcessFacts
from mhnos_runtime.process.input import InputQueue
from mhnos_runtime.process.kind import Kind
from mhnos_runtime.process.table import Process
from mhnos_runtime.sandbox import Allowed, HostFacts, Policy, Sandbox
from mhnos_runtime.server.processes.lifelog import LifeLog
from mhnos_runtime.server.processes.planning import Planner
from mhnos_runtime.wire import messages as m
from tests.output.clock import Alarm, Clock, holds_of

#: A terminal of this size, and a start without descriptors of its own.
SIZE = (80, 24)
#: What a machine can do, and is asked to, where nothing is confined.
FACTS = HostFacts(filters=dict.fromkeys(("strict", "relaxed", "relaxed-no-network"), ""))
NO_SANDBOX = Policy("none")
NOTHING: Mapping[str, Any] = {}
PLAN = LaunchPlan(("/bin/true",), {})


def ended(end_time_ms: int = 1, code: int = 0) -> ExitRecord:
    return ExitRecord(code, None, "exit", "", 1, 1, 1, 1, end_time_ms)


def facts(**known: Any) -> ProcessFacts:
    return msgspec.structs.replace(UNKNOWN, **known)


def shell(command: str = "true", **fields: Any) -> m.Spawn:
    return m.Spawn(process_type="shell", command=command, **fields)


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))


class ManualLoop:
    """An event loop whose timers ring when the test lets time pass. The rest is the running loop's, if there
    is one."""

    def __init__(self) -> None:
        self.clock = Clock()

    def time(self) -> float:
        return self.clock.now

    def call_later(self, seconds: float, action: Callable[..., None], *arguments: Any) -> Alarm:
        return self.clock.later(seconds, partial(action, *arguments))

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio.get_running_loop(), name)


class Link:
    """What the supervisor is asked, in order. spawned: gives the pid of a start, or raises. on_asked: called
    when something else is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.by = ""
        self.on_asked: Callable[[], None] = lambda: None
        self.spawned: Callable[[LaunchPlan, StartDescriptors], Any]

    async def spawn(self, plan: LaunchPlan, descriptors: StartDescriptors, by: str = "") -> int:
        self.by = by
        self.asked.append(("spawn", plan.argv))
        pid: int = await self.spawned(plan, descriptors)
        return pid

    def __getattr__(self, name: str) -> Callable[..., None]:
        def asked(*arguments: Any, **named: Any) -> None:
            self.asked.append((name, *arguments, *named.values()))
            self.on_asked()

        return asked

    def of(self, *names: str) -> list[tuple[Any, ...]]:
        """What was asked under these names."""
        return [each for each in self.asked if each[0] in names]


class Processes:
    """Makes processes with a log of their own, and closes what is left of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.retention_bytes = 0
        self.writers: dict[int, LogWriter] = {}
        self._made: list[Process] = []
        self._opened: list[int] = []

    def record(self, pid: int, **fields: Any) -> ProcessRecord:
        known = {"os_pid": 1, "start_time_ms": 0, "pty": None, "facts": {}, **fields}
        return ProcessRecord(pid, **known)

    def log(self, pid: int) -> int:
        """A descriptor of a new log, for a reader to take over."""
        path = self.folder / f"{pid}.log"
        self.writers[pid] = LogWriter.create(path, self.retention_bytes)
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def make(
        self,
        pid: int = 1000,
        input_fd: int = -1,
        pty: tuple[int, int] | None = None,
        ended_as: ExitRecord | None = None,
        record: dict[str, Any] | None = None,
        **known: Any,
    ) -> Process:
        """known: its facts. input_fd: taken over. record: more of the supervisor's record."""
        reader = LogReader(self.log(pid))
        queue = InputQueue(input_fd, _loop()) if input_fd >= 0 else None
        made = self.record(pid, pty=pty, exit=ended_as, **(record or {}))
        process = Process(made, reader, queue, holds_of(reader), facts(**known))
        self._made.append(process)
        return process

    def on_terminal(self, pid: int = 1000, size: tuple[int, int] = SIZE) -> tuple[Process, int]:
        """A process on a terminal, and the program's end of that."""
        master, slave = pty.openpty()
        os.set_blocking(master, False)
        self._opened.append(slave)
        return self.make(pid, master, size), slave

    def on_pipe(self, pid: int = 1000) -> tuple[Process, int]:
        """A process on pipes, and the program's end of its input."""
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        os.set_blocking(reading, False)
        self._opened.append(reading)
        return self.make(pid, writing), reading

    def keep(self, fd: int) -> None:
        """Close it at the end."""
        self._opened.append(fd)

    def given_up(self, fd: int) -> int:
        """A program's end, for the test to close."""
        self._opened.remove(fd)
        return fd

    def close(self) -> None:
        for process in self._made:
            process.close()
        for writer in self.writers.values():
            writer.close()
        for fd in self._opened:
            os.close(fd)


def _loop() -> Any:
    """For who writes at once: what waits is written only where a loop runs."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return NoLoop()


class NoLoop:
    def add_writer(self, *_: object) -> None: ...
    def remove_writer(self, *_: object) -> None: ...


def drained(fd: int, most: int = 1 << 16) -> bytes:
    """What waits in a pipe or terminal."""
    try:
        return os.read(fd, most)
    except BlockingIOError:
        return b""


async def turns(count: int = 5) -> None:
    """Let the event loop turn, without waiting for anything."""
    for _ in range(count):
        await asyncio.sleep(0)


def pids(found: Sequence[Process]) -> list[int]:
    return [process.pid for process in found]


def settings_and_hello(
    folder: Path, policy: Policy = NO_SANDBOX, listeners: tuple[int, ...] = (), **flags: object
) -> tuple[config.Settings, Hello]:
    """What an operator has set, with a workspace below the folder, and what a supervisor says of it."""
    workspace = folder / "workspace"
    workspace.mkdir(exist_ok=True)
    places = {"workspace": str(workspace), "engines_dir": f"{folder}/engines", "state_dir": f"{folder}/state"}
    settings, _warnings = config.load({**places, **flags}, {"HOME": str(folder)})
    sandbox = Sandbox(policy, FACTS, str(workspace))
    allowed = Allowed(sandbox, f"{folder}/engines", 10, settings.retention_bytes, 1 << 30, 1 << 30)
    return settings, Hello(
        server_id="test",
        spawned=0,
        allowed=allowed.to_dict(),
        settings=settings.to_json(),
        token=None,
        path=os.environ["PATH"],
        node="",
        no_node="there is none",
        listeners=listeners,
    )


def planner(
    folder: Path, *kinds: Kind, policy: Policy = NO_SANDBOX, hello: Mapping[str, Any] = NOTHING
) -> Planner:
    """A real one, of a workspace below the folder. kinds: beside the built-in ones. hello: what of it is
    different."""
    settings, told = settings_and_hello(folder, policy)
    made = Planner(settings, replace(told, **hello), Workspace(settings.workspace))
    made._kinds.update((kind.name, kind) for kind in kinds)
    return made


def life_log() -> LifeLog:
    """Of a server's, to a log of the tests."""
    return LifeLog(logs.get("test"), Limiter(time.monotonic))
