"""One client's connection: its requests, one after the other, what it watches and types, and its answers in
order. Knows messages and one socket; not what a request does."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Protocol, cast

import msgspec

from mhnos_runtime.errors import InvalidRequest, MhnosError
from mhnos_runtime.observe.logs import Log
from mhnos_runtime.process.table import Process, ProcessTable
from mhnos_runtime.server.auth.grants import Access, Forbidden, Grant
from mhnos_runtime.server.connections.events import EventLog
from mhnos_runtime.server.connections.filewatches import FileWatches
from mhnos_runtime.server.connections.input import Input
from mhnos_runtime.server.connections.replies import Replies, Reply
from mhnos_runtime.server.connections.sender import Sender
from mhnos_runtime.server.connections.turns import Turns
from mhnos_runtime.server.connections.viewer import Viewer
from mhnos_runtime.server.connections.watching import Watching
from mhnos_runtime.server.connections.websocket import WebSocket
from mhnos_runtime.server.files.fsync import Upload
from mhnos_runtime.server.processes.lifetimes import Lifetimes
from mhnos_runtime.server.processes.terminals import Terminals
from mhnos_runtime.wire import encode, frames
from mhnos_runtime.wire import messages as m
from mhnos_runtime.wire import websocket as rfc
from mhnos_runtime.wire.faults import error_message
from mhnos_runtime.wire.parse import WireError, parse_request
from mhnos_runtime.wire.push import check_head
from mhnos_runtime.wire.websocket import Payload

#: No process has it. It stands in answers about a name that nothing has.
NO_PID = 0


class Requests(Protocol):
    """The table of requests, see requests/table.py."""

    def check(self, grant: Grant, kind: type[m.Message], /) -> None: ...

    def handle(self, connection: Connection, request: m.Request, /) -> Awaitable[None] | None: ...

    def receive(self, connection: Connection, upload: Upload, /) -> Awaitable[None]: ...


class Supervisor(Protocol):
    """The way to it, see `SupervisorLink`."""

    @property
    def waiting(self) -> int: ...

    @property
    def congested(self) -> bool: ...

    def when_room(self, callback: Callable[[], None], /) -> None: ...


@dataclass(frozen=True, slots=True)
class Services:
    """What all connections of a server share."""

    table: ProcessTable
    lifetimes: Lifetimes
    terminals: Terminals
    turns: Turns
    events: EventLog
    requests: Requests
    supervisor: Supervisor


class Connection:
    """Has the requests of one client done until it leaves or its grant ends.

    A request that takes time keeps the next ones waiting, unless what it does is handed to `later`.
    """

    def __init__(self, services: Services, socket: WebSocket, newer: bool, grant: Grant, log: Log) -> None:
        self.grant = grant
        self._newer = newer
        self._log = log
        self._socket = socket
        self._table = services.table
        self._requests = services.requests
        self._terminals = services.terminals
        self.events = services.events.subscription(grant.sees, self._wake)
        self.files = FileWatches(services.turns.later, self._wake)
        events = (self.events, self.files)
        self._sender = Sender(socket, services.turns, events, self._finished, self._work)
        self.watching = Watching(services.lifetimes, newer, self._sender.ready)
        self.input = Input(services.terminals, self.get, self._tell, self.answer)
        self._replies = Replies(self._sender.answer, self._work)
        self._tasks: set[asyncio.Task[None]] = set()
        self._inbox: deque[tuple[Payload, bool] | Upload | WireError] = deque()
        self._upload: Upload | None = None
        self._busy = False
        self._supervisor = services.supervisor
        # Its requests are more than the supervisor takes.
        self._ahead = False
        self._paused = False

    async def run(self, hello: m.Connected) -> None:
        """Serve the client. Returns when the connection is closed, however that happened."""
        self._socket.start(self)
        self._sender.answer(encode.encode(hello))
        try:
            await self._socket.closed
        finally:
            self._inbox.clear()
            self._cancel_tasks()
            # A client that closes lets go; one that was cut off or sent away may come back.
            self.watching.unwatch_all(vanished=not self._socket.left)
            self.input.leave()
            self._leave_terminals()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            # Last: requests to be told of them may have been among the tasks.
            self.events.end()
            self.files.close()

    def end(self, code: int) -> None:
        """The grant has ended: nothing that waits is done, and nothing more is shown."""
        self._inbox.clear()
        self._busy = True
        self._cancel_tasks()
        self.events.end()
        self.files.close()
        self._socket.close(code)
        self.watching.unwatch_all(vanished=False)

    def _leave_terminals(self) -> None:
        for process in self._table:
            self._terminals.leave(process, self)

    # What the grant shows of the table

    def get(self, handle: m.Handle) -> Process | None:
        """What a pid or a name means to this client; see ProcessTable.get."""
        return self._table.get(handle, self.grant.sees)

    def find(self, handle: m.Handle) -> Process:
        """Raises NotFound (unknown-process), also for one that is there and not this client's to see."""
        return self._table.find(handle, self.grant.sees)

    def pid(self, handle: m.Handle) -> int:
        """A pid as it is, of a process that may be gone by now; for a name that no process has, NO_PID."""
        if isinstance(handle, int):
            return handle
        process = self.get(handle)
        return NO_PID if process is None else process.pid

    def require(self, kind: type[m.Message]) -> None:
        """Whether a request of this kind may be made. Raises Forbidden."""
        self._requests.check(self.grant, kind)

    # What the socket receives; see websocket.Receiver

    def on_message(self, data: Payload, binary: bool) -> None:
        self._inbox.append((data, binary))
        self._work()

    def limit(self, binary: bool, head: bytes) -> int:
        """Only a push may be large. It is not gathered, but carried out as it arrives."""
        try:
            request_id = check_head(b"" if binary else head)
            self._check_upload(request_id)
            self._upload = Upload(self._pace)
            self._inbox.append(self._upload)
        except WireError as error:
            # It is answered in its turn; what still comes of the message is thrown away.
            self._inbox.append(error)
        self._work()
        return m.MAX_MESSAGE_BYTES

    def _check_upload(self, request_id: m.RequestId) -> None:
        try:
            self.require(m.Fsync)
            self.grant.require(Access.GRANTED, writes=True)
        except Forbidden as error:
            raise WireError(error.message, code=error.code, hint=error.hint, request_id=request_id) from None

    def on_part(self, data: Payload, last: bool) -> None:
        if self._upload is not None:
            self._upload.feed(data, last)
        if last:
            self._upload = None
        self._pace()

    def on_writable(self) -> None:
        self._sender.flush()

    # Requests

    def _work(self) -> None:
        """Do what has arrived, in order, until a request takes time, or too many answers wait for the client
        or for what they are about, or too many messages for the supervisor."""
        while self._inbox and not self._stuck:
            before = self._supervisor.waiting
            try:
                work = self._take(self._inbox.popleft())
            except Exception:
                self._defect()
                return
            if work is not None:
                self._busy = True
                self._begin_task(self._finish_request(work))
            elif self._supervisor.waiting > before and self._supervisor.congested:
                self._ahead = True
                self._supervisor.when_room(self._go_on)
        self._pace()

    @property
    def _stuck(self) -> bool:
        return self._busy or self._ahead or self._sender.full or self._replies.full

    def _go_on(self) -> None:
        self._ahead = False
        self._work()

    def _pace(self) -> None:
        """Backpressure: while messages wait here, the next ones wait in the network. A push that arrives
        meanwhile waits in its Upload, up to its bound."""
        upload = self._upload
        waiting = bool(self._inbox) if upload is None else upload.full
        if waiting != self._paused:
            self._paused = waiting
            if waiting:
                self._socket.pause_reading()
            else:
                self._socket.resume_reading()

    async def _finish_request(self, work: Awaitable[None]) -> None:
        await work
        self._busy = False
        self._work()

    def _take(self, message: tuple[Payload, bool] | Upload | WireError) -> Awaitable[None] | None:
        if isinstance(message, Upload):
            return self._requests.receive(self, message)
        try:
            if isinstance(message, WireError):
                raise message
            data, binary = message
            if binary:
                self._take_input(data)
                return None
            request = parse_request(data)
        except WireError as error:
            self.begin().set(encode.encode(error_message(error)))
            return None
        return self._requests.handle(self, request)

    def _defect(self) -> None:
        """An exception that nobody expects: this connection ends, the others go on."""
        self._log.exception("defect in a request")
        self._inbox.clear()
        self._socket.close(rfc.INTERNAL_ERROR)

    def _begin_task(self, work: Awaitable[None]) -> None:
        """Do this for as long as the client is there."""
        task = asyncio.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _cancel_tasks(self) -> None:
        """One that has not begun does so first: Python reports coroutines that were never awaited."""
        loop = asyncio.get_running_loop()
        for task in self._tasks:
            if (
                inspect.getcoroutinestate(cast(Coroutine[None, None, None], task.get_coro()))
                == inspect.CORO_CREATED
            ):
                loop.call_soon(task.cancel)
            else:
                task.cancel()

    async def _guarded(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception:
            self._defect()

    # Answers

    def begin(self) -> Reply:
        return self._replies.begin()

    def answer(self, message: m.Message, reply: Reply | None = None) -> None:
        """Answer a request; clients of 1.0 get some answers twice, see wire.encode."""
        data = encode.encode(message)
        twice = isinstance(message, encode.ANSWERED_TWICE) and self.answers_twice(message.id)
        (reply or self.begin()).set(*((data, encode.as_status(data)) if twice else (data,)))

    def answers_twice(self, request_id: m.RequestId) -> bool:
        """Whether this client waits for some answers under another type, see wire.encode."""
        return not self._newer and request_id is not msgspec.UNSET

    async def part(self, data: bytes, last: bool) -> None:
        """Send a piece of an answer that is not kept as a whole; return when there is room for the next."""
        await self._sender.part(data, last)

    def _tell(self, message: m.Message) -> None:
        """Send something that is no answer to a request."""
        self._sender.answer(encode.encode(message))

    def fail(
        self, error: MhnosError, request: m.Message, reply: Reply | None = None, pid: int | None = None
    ) -> None:
        self.answer(error_message(error, request.id, pid=pid), reply)

    def later(self, work: Awaitable[m.Message], request: m.Message) -> None:
        """Answer when the work is done, without keeping the next requests waiting."""
        self._begin_task(self._finish(work, request, self.begin()))

    def later_in_turn(self, work: Awaitable[Callable[[], m.Message]], request: m.Message) -> None:
        """As `later`, with what the result of `work` gives when all earlier answers are out."""
        self._begin_task(self._finish_in_turn(work, request, self.begin()))

    def in_turn(self, act: Callable[[], m.Message]) -> None:
        """Answer with what `act` gives when all earlier answers are out."""
        self._begin_task(self._act(act, self.begin()))

    async def _act(self, act: Callable[[], m.Message], reply: Reply) -> None:
        await reply.first.wait()
        self.answer(act(), reply)

    async def _finish_in_turn(
        self, work: Awaitable[Callable[[], m.Message]], request: m.Message, reply: Reply
    ) -> None:
        try:
            act = await work
        except MhnosError as error:
            self.fail(error, request, reply)
        else:
            await self._act(act, reply)

    async def _finish(self, work: Awaitable[m.Message], request: m.Message, reply: Reply) -> None:
        try:
            self.answer(await work, reply)
        except MhnosError as error:
            self.fail(error, request, reply)

    def _wake(self) -> None:
        """There are events to be told."""
        self._sender.flush()

    # Output and input

    def _finished(self, viewer: Viewer) -> None:
        pid = viewer.process.pid
        if self.watching.get(pid) is viewer:
            self.watching.finished(pid)
            self.input.forget(pid)

    def _take_input(self, data: Payload) -> None:
        try:
            if not self._newer:
                raise InvalidRequest(
                    "binary frames were not negotiated", code="not-negotiated", hint=f"offer {m.SUBPROTOCOL}"
                )
            self.require(m.Write)
            frame = frames.unpack(data)
        except MhnosError as error:
            self.answer(error_message(error))
        else:
            self.input.take(frame)
