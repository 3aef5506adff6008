"""The runtime as a Python program sees it: requests, processes, a connection that comes back by itself."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Literal, NoReturn, TypeVar, Unpack

from mhnos_runtime.client.backoff import Backoff
from mhnos_runtime.client.dial import SslOption
from mhnos_runtime.client.discovery import Target
from mhnos_runtime.client.errors import (
    ClientError,
    ConnectFailed,
    ConnectionLost,
    ProtocolViolation,
    RequestTimedOut,
    Unauthorized,
)
from mhnos_runtime.client.events import Events, Listeners
from mhnos_runtime.client.files import Files
from mhnos_runtime.client.input_window import InputWindow
from mhnos_runtime.client.link import HEARTBEAT_S, Link, LinkClosed
from mhnos_runtime.client.pending import PendingRequests
from mhnos_runtime.client.process import ClientProcess, Origin, lost
from mhnos_runtime.client.received import name as _name
from mhnos_runtime.client.requests import Requests
from mhnos_runtime.client.spawning import spawn_fields
from mhnos_runtime.client.types import InputUncertain, SpawnOptions
from mhnos_runtime.client.watches import Watches
from mhnos_runtime.wire import frames
from mhnos_runtime.wire import messages as m
from mhnos_runtime.wire.answers import Unknown
from mhnos_runtime.wire.encode import encode

REQUEST_TIMEOUT_S = 30.0  # what clients of protocol 1.0 give a request
PROVEN_AFTER_S = 5.0  # a connection that lasted so long is good: the next loss is a new one
GRANT_ENDED = 1008  # close code: do not come back with this token
INPUT_GOODBYE_S = 1.0  # what was typed last gets so long to arrive when the client is closed
YIELD_EVERY_BYTES = 256 * 1024  # consumers run at least so often, however fast a flood comes

ConnectionState = Literal["lost", "resumed"]
M = TypeVar("M", bound=m.Message)


class Runtime(Requests):
    """A connection to one runtime, open inside `async with`. Made by `connect`."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        reconnect: bool = True,
        backoff: Backoff | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        heartbeat_s: float = HEARTBEAT_S,
        on_state: Callable[[ConnectionState], None] | None = None,
        on_uncertain: Callable[[InputUncertain], None] | None = None,
        ssl_option: SslOption = True,
    ) -> None:
        self.url = url
        self.client_name = str(uuid.uuid4())
        self._token = token
        self._reconnect = reconnect
        self._backoff = backoff or Backoff()
        self._sleep = sleep
        self._clock = clock
        self._request_timeout_s = request_timeout_s
        self._heartbeat_s = heartbeat_s
        self._on_state = on_state
        self._on_uncertain = on_uncertain
        self._ssl_option = ssl_option
        self._pending = PendingRequests()
        self._processes: dict[int, ClientProcess] = {}
        self._inputs: dict[int, InputWindow] = {}
        self._listeners = Listeners(self)
        self._watches = Watches(self, self._pending)
        self.files = Files(self, self._watches, Target(url, token, "connect"), ssl_option)
        self._link: Link | None = None
        self._connected = asyncio.Event()
        self._final: ClientError | None = None
        self._hello: m.Connected | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # Opening and closing

    async def __aenter__(self) -> Runtime:
        link = await self._dial()
        self._keeper = asyncio.create_task(self._keep_connected(link, self._adopt(link)), name="mhnos-client")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._settle_input()
        await self.files.close()
        self._keeper.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(self._keeper, *self._tasks, return_exceptions=True)
        if self._link is not None:
            await self._link.close()
        self._end(ConnectionLost("the client was closed", retry=False))

    async def _settle_input(self) -> None:
        if self._link is not None:
            waits = [each.settled() for each in self._inputs.values()]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(INPUT_GOODBYE_S):
                    await asyncio.gather(*waits, return_exceptions=True)

    # Requests

    async def spawn(
        self, kind: str, command: str = "", *, attach: bool = True, **options: Unpack[SpawnOptions]
    ) -> ClientProcess:
        """Start one process and, unless told otherwise, receive its output from the first byte.

        Raises RequestFailed.
        """
        key = str(uuid.uuid4())
        message = m.Spawn(**spawn_fields(kind, command, options), attach=attach, key=key, acks=True)
        made: list[ClientProcess] = []
        await self.request(
            message, m.Spawned, resend=True, on_answer=lambda got: made.append(self._spawned(got, attach))
        )
        return made[0]

    async def attach(
        self,
        process: int | str,
        from_: Origin | None = None,
        tail: int | None = None,
        *,
        since: int | None = None,
        repaint: bool = False,
    ) -> ClientProcess:
        """Receive output of the process with this pid or name: from an offset, the "start" (default), the
        "end", the last `tail` bytes, or what came `since` a moment (epoch ms). What is no longer kept from
        the offset on comes as a Gap.

        repaint: have a full-screen program draw its screen anew, for a client that starts at the end. Returns
        when the replay is over. Raises RequestFailed (unknown-process); ValueError if this client is attached
        to it already.
        """
        pid = await self.pid(process)
        if pid in self._processes:
            raise ValueError(f"this client is attached to process {pid} already")
        attached = self._processes[pid] = ClientProcess(self, pid)
        attached.start_from(from_, tail, repaint, since)
        self.resync(attached)
        try:
            async with asyncio.timeout(self._request_timeout_s):
                await attached.until_ready()
        except TimeoutError:
            self.forget(attached)
            raise RequestTimedOut(f"no answer to attach within {self._request_timeout_s:g} s") from None
        except BaseException:
            self.forget(attached)
            raise
        return attached

    def handle(self, pid: int) -> ClientProcess:
        """A process by its pid, to write to it or kill it without receiving its output. Asks the server
        nothing."""
        return self._processes.get(pid) or ClientProcess(self, pid)

    async def find(self, name: str) -> ClientProcess:
        """As `handle`, by the name that the process has now. Raises RequestFailed (unknown-process)."""
        return self.handle(await self.pid(name))

    def events(self) -> Events:
        """What becomes of processes, see Events: `async for event in runtime.events()`. To know of all that
        there are and will be, enter it by `async with`, and ask for the list after that."""
        return Events(self._listeners)

    async def ping(self) -> float:
        """A round trip; returns its duration in seconds."""
        start = self._clock()
        await self.request(m.Ping(), m.Pong, resend=True)
        return self._clock() - start

    @property
    def hello(self) -> m.Connected:
        """The server's greeting on the newest connection."""
        assert self._hello is not None, "inside `async with` only"  # noqa: S101
        return self._hello

    def has_scope(self, scope: str) -> bool:
        """Whether this client's grant is good for it. A server that names no scopes has none."""
        scopes = self.hello.scopes
        return not isinstance(scopes, list) or scope in scopes

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._link is not None

    # What processes use

    @property
    def retention_bytes(self) -> int | None:
        """How much of a process's output the server keeps; None where it does not say."""
        limits = self._hello.limits if self._hello is not None else None
        return limits.retention_bytes if isinstance(limits, m.Limits) else None

    async def request(
        self,
        message: m.Message,
        answer: type[M],
        *,
        resend: bool = False,
        on_answer: Callable[[m.Message], None] | None = None,
        timeout_s: float | None = None,
    ) -> M:
        """Send, wait for the answer with the same id. resend: on the next connection again, as it is.
        timeout_s: for what takes longer than other requests.

        Raises RequestFailed, RequestTimedOut, ConnectionLost (not with resend), and what ended the connection
        for good.
        """
        patience_s = timeout_s or self._request_timeout_s
        try:
            async with asyncio.timeout(patience_s):
                got = await self._exchange(message, resend, on_answer)
        except TimeoutError:
            raise RequestTimedOut(
                f"no answer to {_name(message)} within {patience_s:g} s",
                hint="" if self._link is not None else "there is no connection; the client goes on trying",
            ) from None
        if not isinstance(got, answer):
            raise ProtocolViolation(f"{_name(message)} was answered by {_name(got)}")
        return got

    async def send_now(self, message: m.Message | bytes) -> None:
        """Send what needs no answer, if there is a connection."""
        if (to := self._link) is not None:
            await (to.send_frame(message) if isinstance(message, bytes) else to.send(encode(message)))

    def input(self, pid: int) -> InputWindow:
        """What this client types into a process: one numbering, whoever holds it."""
        if pid not in self._inputs:
            typed = self._inputs[pid] = InputWindow(self, pid)
            if self._final is not None:
                typed.fail(self._final)
            self._keep(asyncio.create_task(typed.run()))
        return self._inputs[pid]

    def tell_uncertain(self, uncertain: InputUncertain) -> None:
        """A server was killed while it typed."""
        if self._on_uncertain is not None:
            self._on_uncertain(uncertain)

    def resync(self, process: ClientProcess) -> None:
        """Ask for a process's output from where it is missing; without a connection, the next one does it."""
        if self._link is not None:
            self._keep(asyncio.create_task(self._link.send(self._attach_payload(process))))

    def tell(self, message: m.Message) -> None:
        """As send_now, without waiting."""
        self._keep(asyncio.create_task(self.send_now(message)))

    def forget(self, process: ClientProcess) -> None:
        """Hand no more output to this process."""
        if self._processes.get(process.pid) is process:
            del self._processes[process.pid]

    async def sleep(self, delay_s: float) -> None:
        """Wait, by this client's clock."""
        await self._sleep(delay_s)

    # The connection

    async def _exchange(
        self,
        message: m.Message,
        resend: bool,
        on_answer: Callable[[m.Message], None] | None,
    ) -> m.Message:
        link = await self._usable_link()
        number, waiting = self._pending.add(message, resend=resend, on_answer=on_answer)
        try:
            await link.send(waiting.payload)
            return await waiting.future
        finally:
            self._pending.discard(number)

    async def _usable_link(self) -> Link:
        while self._link is None:
            if self._final is not None:
                raise self._final
            await self._connected.wait()
        return self._link

    async def _dial(self) -> Link:
        return await Link.open(
            self.url, self._token, ssl_option=self._ssl_option, heartbeat_s=self._heartbeat_s
        )

    async def _keep_connected(self, link: Link, unsent: Sequence[bytes]) -> None:
        while True:
            started = self._clock()
            code = await self._serve(link, unsent)
            self._link = None
            self._connected.clear()
            self._pending.connection_lost(code)
            for typed in self._inputs.values():
                typed.on_lost()
            if code == GRANT_ENDED or not self._reconnect:
                self._end(self._why_ended(code))
                return
            if self._clock() - started >= PROVEN_AFTER_S:
                self._backoff.reset()
            self._tell("lost")
            try:
                link = await self._redial()
            except ClientError as error:
                self._end(error)
                return
            unsent = self._adopt(link)
            self._tell("resumed")

    def _why_ended(self, code: int) -> ClientError:
        if code == GRANT_ENDED:
            return Unauthorized(f"{self.url} takes this token no more: its grant was revoked or has expired")
        return ConnectionLost(f"the connection to {self.url} was lost")

    async def _redial(self) -> Link:
        """A new connection, however long it takes. Raises what no further attempt can mend."""
        wait_s = 0.0
        while True:
            await self._sleep(wait_s + self._backoff.next_delay_s())
            try:
                return await self._dial()
            except ConnectFailed as error:
                if not error.retry:
                    raise
                wait_s = error.retry_after_s or 0.0

    def _adopt(self, link: Link) -> Sequence[bytes]:
        """Make it the connection that requests use; returns what must be sent on it first.

        Processes of a server that lost its state are lost.
        """
        before, self._hello = self._hello, link.hello
        if before is not None and before.server_id != link.hello.server_id:
            self._fail_all(lambda pid: lost(pid, "the server has started anew without its earlier state"))
        unsent = [*self._pending.to_resend(), *self._resumptions()]
        self._link = link
        self._connected.set()
        return unsent

    def _resumptions(self) -> Sequence[bytes]:
        """The messages by which every process goes on where it was."""
        processes = self._processes.values()
        attaches = [self._attach_payload(process, resumed=True) for process in processes]
        sizes = [encode(message) for each in processes for message in each.resume_messages()]
        return [*attaches, *sizes, *map(encode, self._listeners.resume()), *self._watches.resume()]

    async def _serve(self, link: Link, unsent: Sequence[bytes]) -> int:
        """Take in what comes until the connection ends; returns the close code."""
        # Sent while receiving: a server that is busy replaying reads nothing before somebody takes the
        # replay.
        resuming = asyncio.create_task(link.send_all(unsent))
        try:
            await self._receive(link)
        except LinkClosed as closed:
            return closed.code
        except ProtocolViolation:
            await link.close()
            return 1002
        finally:
            resuming.cancel()
            await asyncio.gather(resuming, return_exceptions=True)

    async def _receive(self, link: Link) -> NoReturn:
        since_yield_bytes = 0
        while True:
            got = await link.receive()
            if isinstance(got, frames.DataFrame):
                since_yield_bytes += len(got.payload)
                self._on_frame(got)
            else:
                self._on_message(got)
            if since_yield_bytes >= YIELD_EVERY_BYTES:
                since_yield_bytes = 0
                await asyncio.sleep(0)

    def _on_frame(self, frame: frames.DataFrame) -> None:
        if (process := self._processes.get(frame.pid)) is not None:
            process.on_output(frame)

    def _on_message(self, message: m.Message | Unknown) -> None:
        if self._pending.settle(message):
            return
        if isinstance(message, m.ProcessEvent):
            self._listeners.take(message)
            return
        if isinstance(message, m.FilesChanged):
            self._watches.take(message)
            return
        pid = getattr(message, "pid", -1)
        if (typed := self._inputs.get(pid)) is not None:
            typed.on_message(message)
        if (process := self._processes.get(pid)) is None:
            return
        if isinstance(message, m.Gap):
            process.on_gap(message)
        elif isinstance(message, m.Replay):
            process.on_replay(message)
        elif isinstance(message, m.Ready | m.Ports):
            process.on_news(message)
        elif isinstance(message, m.Exit):
            process.on_exit(message)
            if process.over:
                self.forget(process)

    def _attach_payload(self, process: ClientProcess, *, resumed: bool = False) -> bytes:
        """An attach request whose answer is handled by callbacks: no task waits for it."""
        number, waiting = self._pending.add(
            process.attach_message(resumed=resumed),
            resend=False,
            on_answer=lambda answer: self._attached(process, answer),
        )
        waiting.future.add_done_callback(lambda future: self._attach_done(process, number, future))
        return waiting.payload

    def _attached(self, process: ClientProcess, answer: m.Message) -> None:
        if isinstance(answer, m.Attached):
            process.on_attached(answer)
        if process.over:
            self.forget(process)

    def _attach_done(self, process: ClientProcess, number: int, future: asyncio.Future[m.Message]) -> None:
        self._pending.discard(number)
        error = None if future.cancelled() else future.exception()
        if isinstance(error, ConnectionLost):
            return  # the next connection attaches again
        if process.ready() and error is not None and getattr(error, "code", "") == "unknown-process":
            error = lost(process.pid, "the server does not know it any more")
        if isinstance(error, ClientError):
            process.fail(error)
            self.forget(process)

    def _spawned(self, answer: m.Message, attach: bool) -> ClientProcess:
        assert isinstance(answer, m.Spawned)  # noqa: S101
        process = ClientProcess(self, answer.pid, expected=0)
        if attach:
            process.mark_ready()
            self._processes[answer.pid] = process
        return process

    def _end(self, error: ClientError) -> None:
        """No connection any more, and none to come."""
        self._final = self._final or error
        self._link = None
        self._pending.fail_all(self._final)
        self._fail_all(lambda _: self._final or error)
        self._listeners.end(self._final)
        self._watches.end(self._final)
        self._connected.set()

    def _fail_all(self, why: Callable[[int], ClientError]) -> None:
        for pid, process in self._processes.items():
            process.fail(why(pid))
        for pid, typed in self._inputs.items():
            typed.fail(why(pid))
        self._processes, self._inputs = {}, {}

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _tell(self, state: ConnectionState) -> None:
        if self._on_state is not None:
            self._on_state(state)


connect = Runtime
