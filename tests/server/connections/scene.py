"""Connections without a server: real logs, tables, files and WebSockets, on transports of the test's own.

Knows how the parts of a server are put together; the supervisor and the start of processes are doubles.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from mhnos_runtime.config import Settings
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.trash import Trash
from mhnos_runtime.launch import STDOUT, ExitRecord, ProcessRecord
from mhnos_runtime.observe import logs
from mhnos_runtime.output import Holds, LogReader, LogWriter
from mhnos_runtime.process.facts import UNKNOWN, ProcessFacts
from mhnos_runtime.process.input import InputQueue
from mhnos_runtime.process.table import Process, ProcessTable
from mhnos_runtime.server.auth.grants import EVERYTHING, Grant
from mhnos_runtime.server.connections.connection import Connection, Services
from mhnos_runtime.server.connections.events import EventLog
from mhnos_runtime.server.connections.requests.files import FileRequests
from mhnos_runtime.server.connections.requests.filesearch import FileSearchRequests
from mhnos_runtime.server.connections.requests.filewatch import FileWatchRequests
from mhnos_runtime.server.connections.requests.input import InputRequests
from mhnos_runtime.server.connections.requests.processes import ProcessRequests
from mhnos_runtime.server.connections.requests.search import SearchRequests
from mhnos_runtime.server.connections.requests.state import StateRequests
from mhnos_runtime.server.connections.requests.trash import TrashRequests
from mhnos_runtime.server.connections.requests.tree import TreeRequests
from mhnos_runtime.server.connections.requests.watching import WatchRequests
from mhnos_runtime.server.connections.turns import Turns
from mhnos_runtime.server.connections.websocket import HIGH_WATER_BYTES, WebSocket
from mhnos_runtime.server.files.watching import Watchers
from mhnos_runtime.server.files.work import FileWork
from mhnos_runtime.server.main import request_table
from mhnos_runtime.server.processes.lifetimes import Lifetimes
from mhnos_runtime.server.processes.records import Records
from mhnos_runtime.server.processes.terminals import Terminals
from mhnos_runtime.wire import frames
from mhnos_runtime.wire import messages as m
from tests.output.clock import Clock
from tests.server.processes.scene import life_log
from tests.server.raw import BINARY, CLOSE, PONG, TEXT, frame

#: Until a test gives up; nothing waits for so long unless it fails.
PATIENCE_SECONDS = 20
#: What every log here keeps.
RETENTION_BYTES = 64 << 10


async def turns_until(check: Callable[[], bool]) -> None:
    """Let the event loop turn until something is so that nobody is told of."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not check():  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0)


class Link:
    """A supervisor that does nothing; called: what it was told, as (name, arguments...)."""

    def __init__(self) -> None:
        self.called: list[tuple[Any, ...]] = []
        self.congested = False
        self._for_room: list[Callable[[], None]] = []

    @property
    def waiting(self) -> int:
        return len(self.called)

    def when_room(self, callback: Callable[[], None]) -> None:
        self._for_room.append(callback)

    def make_room(self) -> None:
        """It has taken what waited."""
        self.congested = False
        waiting, self._for_room = self._for_room, []
        for callback in waiting:
            callback()

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **more: self.called.append((name, *args, *more.values()))


class Starting:
    """Starts what it is told to when it is told to: each spawn waits for the next of `starts`."""

    def __init__(self) -> None:
        self.asked: list[m.Spawn] = []
        self.starts: list[asyncio.Future[Process]] = []
        self._loop = asyncio.get_running_loop()

    def next(self) -> asyncio.Future[Process]:
        self.starts.append(self._loop.create_future())
        return self.starts[-1]

    async def spawn(self, request: m.Spawn, by: str = "") -> Process:
        self.asked.append(request)
        return await self.starts[len(self.asked) - 1]


class Program:
    """A process's entry in the table, with a real log that the test writes and a pipe that it reads."""

    def __init__(
        self, scene: Scene, pid: int, pty: tuple[int, int] | None, facts: ProcessFacts, *, reads: bool
    ) -> None:
        path = scene.folder / f"log{pid}"
        self._scene = scene
        self.writer = LogWriter.create(path, RETENTION_BYTES)
        self.clock = Clock()
        log = LogReader(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        self.reads, fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        queue = InputQueue(fd, asyncio.get_running_loop()) if reads else None
        if queue is None:
            os.close(fd)
        record = ProcessRecord(pid, os.getpid(), 1, pty, {}, stdin_open=reads)
        holds = Holds(log, 10, self.clock.later, lambda: scene.link.moved(pid))
        self.process = Process(record, log, queue, holds, facts)
        scene.table.add(self.process, new=True)
        scene.lifetimes.begin(self.process, new=True)
        # As after a start that was answered.
        self.process.viewers.clear()

    def write(self, data: bytes, stream: int = STDOUT, now_ms: int = 1) -> None:
        """Output, which the supervisor tells of where it has to."""
        while data:
            room = self.writer.room()
            assert room, "the log is held: this test would wait for ever"
            part, data = data[:room], data[room:]
            if self.writer.append(part, stream, now_ms):
                self.wake()

    def wake(self) -> None:
        self.process.holds.look()
        self.process.wake()

    def typed(self) -> bytes:
        """What was written to its input since the last time."""
        try:
            return os.read(self.reads, 1 << 20)
        except BlockingIOError:
            return b""

    async def read(self, count: int) -> bytes:
        """So much of what is written to its input, as it comes."""
        found = bytearray()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(found) < count:
                found += self.typed()
                await asyncio.sleep(0)
        return bytes(found)

    def end(self, code: int | None = 0, reason: str = "exit") -> None:
        record = ExitRecord(code, None, reason, "test", 5, 6, 7, self.writer.head, 1 << 50)
        self._scene.lifetimes.end(self.process, record)

    def close(self) -> None:
        self.writer.close()
        os.close(self.reads)


class Transport(asyncio.Transport):
    """A connection to a client, which takes what is sent unless it is told to `stall`."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = True
        self.closed = False
        self.stalled = False
        self.sent = bytearray()
        self.changed = asyncio.Event()
        self.protocol: asyncio.BaseProtocol = asyncio.Protocol()
        self._untaken = 0

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.reading = False
        self.changed.set()

    def resume_reading(self) -> None:
        self.reading = True
        self.changed.set()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data
        self.changed.set()
        if self.stalled:
            before, self._untaken = self._untaken, self._untaken + len(data)
            if before <= HIGH_WATER_BYTES < self._untaken:
                cast(asyncio.Protocol, self.protocol).pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def stall(self) -> None:
        self.stalled = True

    def take(self) -> None:
        """The client reads again, all there is."""
        was_full = self._untaken > HIGH_WATER_BYTES
        self.stalled, self._untaken = False, 0
        if was_full:
            cast(asyncio.Protocol, self.protocol).resume_writing()

    def abort(self) -> None:
        if not self.closed:
            self.closed = True
            self.changed.set()
            asyncio.get_running_loop().call_soon(cast(asyncio.Protocol, self.protocol).connection_lost, None)

    close = abort


class Client:
    """One client of a connection: sends frames, and reads the messages that came."""

    def __init__(self, scene: Scene, newer: bool, grant: Grant, max_bytes: int) -> None:
        self.transport = Transport()
        self.socket = WebSocket(self.transport, max_bytes, 1000.0)
        self.connection = Connection(scene.services, self.socket, newer, grant, logs.get("test"))
        hello = m.Connected(m.ServerConfig("/workspace", "none", False))
        self.running = asyncio.create_task(self.connection.run(hello))
        self.got: list[dict[str, Any]] = []
        self.close_code: int | None = None
        self._at = 0

    def send(self, type_: str, **fields: Any) -> None:
        self.raw(TEXT, json.dumps({"type": type_, **fields}).encode())

    def type(self, pid: int, data: bytes, offset: int | None = None, kind: int = frames.INPUT) -> None:
        """A binary frame of input; offset: it is numbered."""
        flags = 0 if offset is None else frames.NUMBERED
        self.raw(BINARY, frames.pack_header(kind, flags, pid, offset or 0) + data)

    def raw(self, opcode: int, payload: bytes, **more: Any) -> None:
        self.receive(frame(opcode, payload, **more))

    def receive(self, data: bytes) -> None:
        """What comes over the network, whether the server reads it or not."""
        cast(asyncio.Protocol, self.transport.protocol).data_received(data)

    def seen(self) -> list[dict[str, Any]]:
        """All messages so far, in order. Binary ones have `data` in bytes."""
        while (message := self._next()) is not None:
            self.got.append(message)
        return self.got

    def types(self) -> list[str]:
        return [message["type"] for message in self.seen()]

    def of(self, *types: str) -> list[dict[str, Any]]:
        return [message for message in self.seen() if message["type"] in types]

    async def until(self, type_: str, count: int = 1, **fields: Any) -> dict[str, Any]:
        """The message number `count` of this type and with these fields."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                found = [each for each in self.of(type_) if fields.items() <= each.items()]
                if len(found) >= count:
                    return found[count - 1]
                await self._change()

    async def until_closed(self) -> int | None:
        """The code of the server's close frame."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.running
        self.seen()
        return self.close_code

    async def until_reading(self, reading: bool) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.transport.reading != reading:
                await self._change()

    async def answered(self) -> None:
        """All that was asked before is answered."""
        number = len(self.of("pong"))
        self.send("ping")
        await self.until("pong", number + 1)

    async def vanish(self) -> None:
        """The connection breaks."""
        self.transport.abort()
        await self.running

    async def leave(self) -> None:
        """Say goodbye."""
        self.raw(CLOSE, struct.pack("!H", 1000))
        await self.running

    async def _change(self) -> None:
        self.transport.changed.clear()
        await self.transport.changed.wait()

    def _next(self) -> dict[str, Any] | None:
        """One message of the server, which masks nothing (RFC 6455, 5.1). Fragments are joined."""
        message, at, sent = bytearray(), self._at, self.transport.sent
        kind = 0
        while len(sent) >= at + 2:
            first, size = sent[at], sent[at + 1]
            at += 2
            for code, form in ((126, "!H"), (127, "!Q")):
                if size == code:
                    (size,) = struct.unpack_from(form, sent, at)
                    at += struct.calcsize(form)
                    break
            if first & 15 == CLOSE:
                self.close_code = int.from_bytes(sent[at : at + 2]) if size else None
                self._at = at + size
                return {"type": "close frame"}
            if first & 15 == PONG:
                self._at = at + size
                return {"type": "pong frame", "data": bytes(sent[at : at + size])}
            kind = kind or first & 15
            message += sent[at : at + size]
            at += size
            if first & 0x80:
                self._at = at
                return _binary(message) if kind == BINARY else json.loads(message)
        return None


def _binary(message: bytearray) -> dict[str, Any]:
    got = frames.unpack(message)
    return {
        "type": {frames.STDOUT: "stdout", frames.STDERR: "stderr"}[got.kind],
        "pid": got.pid,
        "offset": got.offset,
        "data": bytes(got.payload),
        "replay": bool(got.flags & frames.REPLAY),
    }


class Scene:
    """One server's domains. `close` ends it, and every client."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        loop = asyncio.get_running_loop()
        self.folder = folder
        self.files = settings.workspace
        self.link = Link()
        self.table = ProcessTable(max_processes=50, retain_count=10, retain_ms=1 << 40)
        link = cast(Any, self.link)
        turns = Turns(loop)
        events = EventLog(turns)
        self.terminals, self.records = Terminals(loop, link, "latest"), Records(self.table, link, events.tell)
        self.lifetimes = Lifetimes(loop, self.table, link, events.tell, life_log())
        self.starting = Starting()
        self.work, self.workspace = FileWork(), Workspace(self.files)
        self.watchers = Watchers(self.work)
        self.trash = Trash(folder / "trash", settings.trash_seconds)
        requests = request_table(
            FileRequests(self.workspace, self.work),
            ProcessRequests(self.table, cast(Any, self.starting), self.lifetimes, self.records, self.work),
            WatchRequests(self.terminals),
            SearchRequests(self.table, self.work),
            FileSearchRequests(self.workspace, self.work),
            InputRequests(self.terminals),
            StateRequests(settings, self.table),
            FileWatchRequests(self.workspace, self.watchers),
            TreeRequests(self.workspace, self.trash, self.work),
            TrashRequests(self.workspace, self.trash, self.work),
        )
        self.services = Services(
            self.table, self.lifetimes, self.terminals, turns, events, requests, self.link
        )
        self.programs: list[Program] = []
        self._clients: list[Client] = []

    def program(
        self,
        pid: int = 1000,
        pty: tuple[int, int] | None = None,
        facts: ProcessFacts = UNKNOWN,
        *,
        reads: bool = True,
    ) -> Program:
        self.programs.append(Program(self, pid, pty, facts, reads=reads))
        return self.programs[-1]

    async def client(
        self, newer: bool = True, grant: Grant = EVERYTHING, max_bytes: int = m.MAX_MESSAGE_BYTES
    ) -> Client:
        client = Client(self, newer, grant, max_bytes)
        self._clients.append(client)
        await client.until("connected")
        return client

    async def close(self) -> None:
        for client in self._clients:
            await client.vanish()
        self.lifetimes.close()
        self.terminals.close()
        for process in self.table:
            process.close()
        for program in self.programs:
            program.close()
        self.watchers.close()
        await asyncio.to_thread(self.work.close)
        self.workspace.close()
