"""Finds out when processes are ready and where they listen, and has it noted. Knows no client.

What is known already, and what to look for, stands in a process's facts: the next server goes on from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable

import aiohttp

from mhnos_runtime import proc
from mhnos_runtime.bounds import TOLD_BYTES
from mhnos_runtime.output import Cursor, Overrun
from mhnos_runtime.process import ready
from mhnos_runtime.process.facts import Found
from mhnos_runtime.process.table import Process

#: Between two looks at a port: quick at first, for programs that start quickly.
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 0.25
_ANSWER_SECONDS = 5.0
#: Read from a control socket at a time; workerd writes less in all its life.
_CONTROL_BYTES = 64 * 1024
#: Bytes of output that are searched before others get their turn.
_TURN_BYTES = 256 * 1024

Note = Callable[[Process, Found], None]


class Watchers:
    """A watcher for each process that is not ready yet, or that goes on telling where it listens.

    note: keeps what was found on a process's record and has its viewers told.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, note: Note) -> None:
        self._loop = loop
        self._note = note
        self._watchers: dict[int, Watcher] = {}

    def begin(self, process: Process, control_fd: int) -> None:
        """Watch a process, if there is something to watch. Takes over the descriptor, -1 for none."""
        control = None if control_fd < 0 else socket.socket(fileno=control_fd)
        watch = process.facts.watch
        if watch is None:
            if control is not None:
                control.close()
            return
        watcher = Watcher(self._loop, process, watch, control, self._note)
        if process.exit is None:
            self._watchers[process.pid] = watcher
            watcher.begin()
        else:
            watcher.ended()

    def look(self, pid: int) -> None:
        """The process has written output."""
        watcher = self._watchers.get(pid)
        if watcher is not None:
            watcher.look()

    def ended(self, pid: int) -> None:
        """The process has ended, and its record does not say so yet."""
        watcher = self._watchers.pop(pid, None)
        if watcher is not None:
            watcher.ended()

    def close(self) -> None:
        for watcher in self._watchers.values():
            watcher.close()
        self._watchers.clear()


class Watcher:
    """Looks at one process in the ways that its watch names, until one of them finds it ready."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        process: Process,
        watch: ready.Watch,
        control: socket.socket | None,
        note: Note,
    ) -> None:
        self._loop = loop
        self._process = process
        self._watch = watch
        self._control = control
        self._note = note
        self._events = ready.ControlEvents()
        self._control_total = 0
        if control is not None:
            control.setblocking(False)
        self._search = ready.LineSearch(watch.line) if watch.line else None
        self._turn: asyncio.Handle | None = None
        self._cursor = Cursor(process.log, 0)
        self._timer: asyncio.TimerHandle | None = None
        self._probe: asyncio.Task[None] | None = None

    @property
    def _starting(self) -> bool:
        known = self._process.facts.ready
        return known is not None and known.state == "starting"

    def begin(self) -> None:
        if self._control is not None:
            self._loop.add_reader(self._control.fileno(), self._read_control, self._control)
        if not self._starting:
            return
        due_ms = self._process.record.start_time_ms + self._watch.timeout_ms - time.time_ns() // 1_000_000
        self._timer = self._loop.call_later(max(0.0, due_ms / 1000), self._timed_out)
        if self._watch.url:
            self._probe = self._loop.create_task(self._probe_url())
        elif self._watch.port:
            self._probe = self._loop.create_task(self._probe_port())
        self.look()

    def _timed_out(self) -> None:
        self._settle("failed", f"not ready after {self._watch.timeout_ms / 1000:g} s")

    def ended(self) -> None:
        """What the program told up to its end counts, and of its output what one turn searches."""
        while self._control is not None and self._read_control(self._control):
            pass
        self._take_turn()
        if self._starting:
            self._settle("failed", "it ended before it was ready")
        self.close()

    def close(self) -> None:
        self._stop_looking()
        if self._control is not None:
            self._loop.remove_reader(self._control.fileno())
            self._control.close()
            self._control = None

    def _settle(self, state: ready.ReadyState, reason: str = "") -> None:
        if self._starting:
            self._stop_looking()
            self._note(self._process, Found(ready=ready.Readiness(state, reason)))

    def _stop_looking(self) -> None:
        self._search = None
        if self._turn is not None:
            self._turn.cancel()
        if self._timer is not None:
            self._timer.cancel()
        # A probe that has found the process ready ends by itself.
        if self._probe is not None and self._probe is not asyncio.current_task(self._loop):
            self._probe.cancel()

    # By its output

    def look(self) -> None:
        """Search the output that has come, and ask to be woken by more."""
        if self._turn is None:
            self._take_turn()

    def _take_turn(self) -> None:
        self._turn = None
        searched = 0
        while self._search is not None:
            if searched >= _TURN_BYTES:
                self._turn = self._loop.call_soon(self._take_turn)
                return
            item = self._cursor.take()
            if item is None:
                if self._process.log.park(self._cursor.offset):
                    return
            elif isinstance(item, Overrun):
                self._search.skip()
            else:
                searched += len(item.data)
                if self._search.feed(item.stream, item.data):
                    self._settle("ready")

    # By its port or URL

    async def _probe_port(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_ANSWER_SECONDS):
                    _reader, writer = await asyncio.open_connection(ready.LOOPBACK, self._watch.port)
                writer.close()
                self._settle("ready")
                return
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)

    async def _probe_url(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError, ValueError):
                    async with session.get(self._watch.url, allow_redirects=False) as response:
                        if 200 <= response.status < 300:
                            self._settle("ready")
                            return
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)

    # By its control socket

    def _read_control(self, control: socket.socket) -> bool:
        """Peek at what the program has told, note it, and only then take it, so that nothing is lost if the
        server ends between the two. One read a turn, since a program may write without end. False when there
        is nothing to read now."""
        try:
            data = control.recv(_CONTROL_BYTES, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        self._control_total += len(data)
        if not data or self._control_total > TOLD_BYTES:
            self._loop.remove_reader(control.fileno())
            return False
        self._note_ports(self._events.feed(data))
        control.recv(len(data))
        return True

    def _note_ports(self, told: list[ready.Port]) -> None:
        if not told:
            return
        known = self._process.facts.ports
        ports = ready.merged(known, [self._with_address(port) for port in told])
        if ports != known:
            self._note(self._process, Found(ports=ports))
        self._settle("ready")

    def _with_address(self, port: ready.Port) -> ready.Port:
        """With the address by which the machine reaches it, where it does."""
        if not self._watch.outside:
            return port
        address = proc.listens_on(self._process.record.os_pid, port.port)
        return ready.port(port.name, port.port, ready.reachable(address))
