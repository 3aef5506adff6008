"""What all connections share: the table of processes, the workspace, the link to the supervisor.

Knows processes and policy; not frames, and not who is connected.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mhnos_runtime.config import Settings
from mhnos_runtime.errors import InvalidRequest, MhnosError, NotFound, Refused
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.launch import ExitRecord, LaunchPlan, ProcessDescriptors, ProcessRecord
from mhnos_runtime.observe import logs
from mhnos_runtime.output import Holds, LogReader
from mhnos_runtime.process.facts import UNKNOWN, Found, ProcessFacts, Unreadable
from mhnos_runtime.process.input import InputQueue
from mhnos_runtime.process.input_positions import ClientInput
from mhnos_runtime.process.kind import Kind
from mhnos_runtime.process.state import Event
from mhnos_runtime.process.table import Process, ProcessTable
from mhnos_runtime.server.connections.turns import Turns
from mhnos_runtime.server.files.work import FileWork
from mhnos_runtime.server.processes import room
from mhnos_runtime.server.processes.link import SupervisorLink
from mhnos_runtime.server.processes.planning import Starter, digest
from mhnos_runtime.server.processes.readiness import Watchers
from mhnos_runtime.wire import messages as m

_log = logs.get("server")

#: What a terminal takes for the end of its input (termios(3), VEOF).
_END_OF_FILE = b"\x04"
#: When a terminal's size is set again. Long enough for a program on a busy machine to ask for the smaller
#: size of a repaint, short enough not to be seen.
SETTLE_SECONDS = 0.1
#: The supervisor is told no more often than this that somebody types into a process: a key that is held down
#: repeats each 30 ms, and what a program pours into a terminal must not fill the channel.
TYPED_SECONDS = 0.02


class Runtime:
    """Serves requests about processes. Is the listener of the supervisor link."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, turns: Turns, settings: Settings, hello: Mapping[str, Any]
    ) -> None:
        self.turns = turns
        self.settings = settings
        self.server_id: str = hello["server_id"]
        self.workspace = Workspace(settings.workspace)
        self.files = FileWork()
        self.table = ProcessTable(
            settings.max_processes, settings.retain_count, round(settings.retain_seconds * 1000)
        )
        self.table.total_spawned = hello["spawned"]
        self.link: SupervisorLink
        self._loop = loop
        self.starter = Starter(settings, hello, self.workspace)
        self._watchers = Watchers(loop, self._note)
        self._singles: set[str] = set()
        self._ended: dict[int, asyncio.Future[None]] = {}
        self._keys: dict[str, asyncio.Lock] = {}
        self._lingering: dict[int, asyncio.TimerHandle] = {}
        self._settling: dict[int, asyncio.TimerHandle] = {}
        self._expiry: asyncio.TimerHandle | None = None

    def close(self) -> None:
        self._watchers.close()
        for process in self.table:
            process.close()
        self.files.close()
        self.workspace.close()

    # What the supervisor says

    def on_process(self, record: ProcessRecord, descriptors: ProcessDescriptors, new: bool) -> None:
        """A process is there: one that another server left, or a new one, which may be that one's too."""
        # The mapping is all that can fail (OSError, Unavailable), and nothing has been taken over by then.
        try:
            log = LogReader(os.dup(descriptors.log))
        except MhnosError as error:
            _log.error("the output of a process cannot be read", pid=record.pid, reason=str(error))
            raise
        os.close(descriptors.log)
        self.table.total_spawned += new
        queue = InputQueue(descriptors.input, self._loop) if descriptors.input >= 0 else None
        holds = Holds(
            log, self.settings.stall_seconds, self._loop.call_later, lambda: self.link.moved(record.pid)
        )
        process = Process(record, log, queue, holds, _facts(record))
        self.table.add(process)
        if process.exit is None:
            self._ended[process.pid] = self._loop.create_future()
        self._watchers.begin(process, descriptors.control)

    def on_restored(self) -> None:
        """The table is as the last server left it; clients will come back."""
        for process in self.table:
            self._restore_size(process)
            self.linger(process)
        self.expire()

    def on_output(self, pid: int) -> None:
        process = self.table.get(pid)
        if process is None:
            return
        process.holds.look()
        self._watchers.look(pid)
        process.wake()

    def on_exit(self, pid: int, exit_record: ExitRecord) -> None:
        process = self.table.get(pid)
        if process is None:
            return  # one that was discarded, see SupervisorLink
        self._watchers.ended(pid)
        process.end(exit_record)
        self._ended.pop(pid).set_result(None)
        process.wake()
        self.expire()

    # Starting

    async def spawn(self, request: m.Spawn) -> Process:
        """Start what a client asks for, or find what the same request with the same key has started.

        Raises MhnosError with a code for whatever is wrong.
        """
        if request.key is None:
            return await self._spawn(request)
        # One after the other for each key: the second finds what the first has started.
        lock = self._keys.setdefault(request.key, asyncio.Lock())
        try:
            async with lock:
                return self._started_with(request.key, request) or await self._spawn(request)
        finally:
            if not lock.locked():
                self._keys.pop(request.key, None)

    def _started_with(self, key: str, request: m.Spawn) -> Process | None:
        for process in self.table:
            if process.facts.key is not None and process.facts.key.name == key:
                if process.facts.key.request != digest(request):
                    raise InvalidRequest(
                        "this key was used for another request",
                        code="key-conflict",
                        hint="a new request takes a new key",
                    )
                return process
        return None

    async def _spawn(self, request: m.Spawn) -> Process:
        asked = self.starter.asked(request)
        with self._alone(asked.kind):
            self.table.reserve()
            try:
                room.check_start(self.table.starting)
                with self.starter.prepare(asked, self._environment(asked.kind)) as start:
                    pid = await self.link.spawn(start.plan, start.descriptors)
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    raise
                raise room.none_left() from error
            finally:
                self.table.release()
        return self.table.find(pid)

    def plan(self, request: m.Spawn) -> LaunchPlan:
        """What `spawn` would have executed. Raises as that does, but for what only a start can show."""
        asked = self.starter.asked(request)
        with self.starter.prepare(asked, self._environment(asked.kind), dry=True) as start:
            return start.plan

    @contextlib.contextmanager
    def _alone(self, kind: Kind) -> Iterator[None]:
        """For a kind of which there is one at a time. Raises Refused (already-running)."""
        if not kind.single:
            yield
            return
        running = self._running(kind.name)
        if running is not None or kind.name in self._singles:
            raise Refused(
                f"{kind.name} runs already" + (f", as process {running.pid}" if running else ""),
                code="already-running",
                hint="attach to it, or end it first",
            )
        self._singles.add(kind.name)
        try:
            yield
        finally:
            self._singles.discard(kind.name)

    def _running(self, kind: str) -> Process | None:
        """The one of a kind of which there is one at a time."""
        alive = (each for each in self.table if each.exit is None and each.facts.single)
        return next((each for each in alive if each.facts.kind == kind), None)

    def _environment(self, kind: Kind) -> Mapping[str, str]:
        """What it is told of the process of its kind that runs."""
        running = self._running(kind.name)
        return kind.hooks.environment(None if running is None else running.facts)

    def _note(self, process: Process, found: Found) -> None:
        """Keep what was found out about a process, and have those told who watch it."""
        process.facts = process.facts.with_found(found)
        self.link.note(process.pid, found)
        process.wake()

    # Ending

    def kill(self, process: Process, number: int, escalate: bool) -> None:
        """Send a signal; with escalate, stronger ones follow until nothing of the process is left."""
        process.happen(Event.END_REQUESTED if escalate else Event.SIGNALLED)
        self.link.kill(process.pid, number, "killed", escalate)

    async def ended(self, process: Process) -> None:
        """Return when nothing of the process is left."""
        ended = self._ended.get(process.pid)
        if ended is not None:
            await asyncio.shield(ended)

    def linger(self, process: Process) -> None:
        """Nobody may be watching any more: end the process if it was asked for, after the time it was
        given."""
        linger_ms = process.facts.linger_ms
        if linger_ms is None or process.viewers or process.exit is not None:
            return
        self._stop_lingering(process.pid)
        self._lingering[process.pid] = self._loop.call_later(linger_ms / 1000, self._end_idle, process)

    def _end_idle(self, process: Process) -> None:
        self._lingering.pop(process.pid, None)
        if process.exit is None and not process.viewers:
            process.happen(Event.END_REQUESTED)
            self.link.kill(process.pid, signal.SIGTERM, "idle", escalate=True)

    def _stop_lingering(self, pid: int) -> None:
        timer = self._lingering.pop(pid, None)
        if timer is not None:
            timer.cancel()

    def expire(self) -> None:
        """Forget what is kept no longer, and come back when there will be something more."""
        for process in self.table.expire(_now_ms()):
            process.close()
            self.link.forget(process.pid)
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        due_ms = self.table.next_expiry_ms()
        if due_ms is not None:
            self._expiry = self._loop.call_later(max(0.0, (due_ms - _now_ms()) / 1000) + 0.01, self.expire)

    # Watching

    def enter(self, process: Process, viewer: object, wake: Callable[[], None]) -> None:
        """Someone begins to watch."""
        self._stop_lingering(process.pid)
        process.viewers[viewer] = wake

    def leave(self, process: Process, viewer: object) -> None:
        """Someone watches no longer."""
        process.viewers.pop(viewer, None)
        self.linger(process)
        if process.exit is not None:
            self.expire()

    # Input

    def write(self, process: Process, data: bytes | memoryview) -> None:
        """Raises NotNow (input-closed) and LimitReached (input-full)."""
        process.happen(Event.INPUT)
        if process.input is None:
            raise NotFound("the process's standard input is closed", code="input-closed")
        self._typed(process)
        process.input.write(data)

    def open_input(self, process: Process, client: str) -> ClientInput:
        """Raises LimitReached (too-many-clients)."""
        return process.numbered().open(client, _now_ms())

    def write_numbered(self, process: Process, client: ClientInput, offset: int, data: memoryview) -> None:
        """Type what of `data` was not typed before. Raises InvalidRequest (input-gap) and as `write`."""
        part = client.new_part(offset, data)
        if part:
            if process.input is None:
                raise NotFound("the process's standard input is closed", code="input-closed")
            process.happen(Event.INPUT)
            self._typed(process)
            process.input.write(part, client)
            client.accepted += len(part)

    def _typed(self, process: Process) -> None:
        """Have floods wait for what a terminal answers. Told before the key is there, since an answer that
        comes first ends no pause."""
        now = self._loop.time()
        if process.size is not None and now >= process.typed_at + TYPED_SECONDS:
            process.typed_at = now
            self.link.typed(process.pid)

    def close_stdin(self, process: Process) -> None:
        """End a pipe's input after what was written; on a terminal, type the end-of-file character."""
        if process.exit is not None or process.input is None or process.input.closed:
            return
        if process.size is not None:
            process.input.write(_END_OF_FILE)
        else:
            process.input.close_after_writing(lambda: self.link.close_stdin(process.pid))

    def resize(self, process: Process, columns: int, rows: int) -> None:
        """Ignored for a process on pipes and for one that has ended."""
        if process.size is None or process.input is None or process.input.closed:
            return
        process.happen(Event.RESIZED)
        termios.tcsetwinsize(process.input.fd, (rows, columns))
        process.size = (columns, rows)
        self.link.size(process.pid, columns, rows)
        # A shell's line editor reads the size and sets it again before each prompt (readline, set_winsize),
        # and may so undo this one. To set what is there already changes nothing.
        self._settle_size(process)

    def repaint(self, process: Process) -> None:
        """Have a full-screen program draw anew: make its terminal one row smaller, and after a moment as
        before.

        Two sizes, since most programs ignore a signal that brings the size that they know; a moment, since
        they ask for the size only when they get to it. A server that ends meanwhile leaves the rest to the
        next one.
        """
        if process.size is None or process.input is None or process.input.closed:
            return
        columns, rows = process.size
        termios.tcsetwinsize(process.input.fd, (max(1, rows - 1), columns))
        self._settle_size(process)

    def _settle_size(self, process: Process) -> None:
        """Set the size again after a moment, counted from the last change of it."""
        if process.pid in self._settling:
            self._settling[process.pid].cancel()
        self._settling[process.pid] = self._loop.call_later(SETTLE_SECONDS, self._restore_size, process)

    def _restore_size(self, process: Process) -> None:
        self._settling.pop(process.pid, None)
        if process.size is not None and process.input is not None and not process.input.closed:
            columns, rows = process.size
            termios.tcsetwinsize(process.input.fd, (rows, columns))

    # Telling

    def stats(self) -> m.ServerStats:
        active = self.table.active
        return m.ServerStats(self.table.total_spawned, self.table.total_spawned - active, active)


def _facts(record: ProcessRecord) -> ProcessFacts:
    try:
        return ProcessFacts.decode(record.facts)
    except Unreadable as error:
        _log.error("the facts about a process cannot be read", pid=record.pid, reason=str(error))
        return UNKNOWN


def signal_number(name: str) -> int:
    """A signal by name, with or without SIG, or by number. Raises InvalidRequest with the text of protocol
    1.0."""
    try:
        if name.isdigit():
            return signal.Signals(int(name)).value
        return signal.Signals[name if name.startswith("SIG") else f"SIG{name}"].value
    except (KeyError, ValueError):
        raise InvalidRequest(f"Unknown signal: {name}", code="unknown-signal") from None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
