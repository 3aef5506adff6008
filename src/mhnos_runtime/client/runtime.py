"""The runtime as a Python program sees it: requests, processes, a connection that comes back by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Literal, NoReturn, TypeVar

import aiohttp

from mhnos_runtime.client import transfer
from mhnos_runtime.client.backoff import Backoff
from mhnos_runtime.client.errors import (
    ClientError,
    ConnectFailed,
    ConnectionLost,
    ProtocolViolation,
    RequestFailed,
    RequestTimedOut,
)
from mhnos_runtime.client.link import HEARTBEAT_S, Link, LinkClosed, SslOption, Unknown
from mhnos_runtime.client.pending import PendingRequests
from mhnos_runtime.client.process import ClientProcess, Origin, lost
from mhnos_runtime.client.timeline import read_timeline
from mhnos_runtime.client.types import PtySize
from mhnos_runtime.wire import frames
from mhnos_runtime.wire import messages as m
from mhnos_runtime.wire.encode import encode

REQUEST_TIMEOUT_S = 30.0  # what clients of protocol 1.0 give a request
PROVEN_AFTER_S = (
    5.0  # a connection that lasted so long is good: the next loss is a new one, not the same again
)
YIELD_EVERY_BYTES = 256 * 1024  # consumers run at least so often, however fast a flood comes

ConnectionState = Literal["lost", "resumed"]
M = TypeVar("M", bound=m.Message)


class Runtime:
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
        ssl_option: SslOption = True,
    ) -> None:
        self.url = url
        self._token = token
        self._reconnect = reconnect
        self._backoff = backoff or Backoff()
        self._sleep = sleep
        self._clock = clock
        self._request_timeout_s = request_timeout_s
        self._heartbeat_s = heartbeat_s
        self._on_state = on_state
        self._ssl_option = ssl_option
        self._pending = PendingRequests()
        self._processes: dict[int, ClientProcess] = {}
        self._link: Link | None = None
        self._connected = asyncio.Event()
        self._final: ClientError | None = None
        self._hello: m.Connected | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # Opening and closing

    async def __aenter__(self) -> Runtime:
        self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        try:
            link = await self._dial()
        except BaseException:
            await self._session.close()
            raise
        self._keeper = asyncio.create_task(self._keep_connected(link, self._adopt(link)), name="mhnos-client")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._keeper.cancel()
        await asyncio.gather(self._keeper, *self._tasks, return_exceptions=True)
        if self._link is not None:
            await self._link.close()
        self._end(ConnectionLost("the client was closed", retry=False))
        await self._session.close()

    # Requests

    async def spawn(
        self,
        kind: str,
        command: str = "",
        *,
        args: Sequence[str] = (),
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout_ms: int | None = None,
        pty: PtySize | bool | None = None,
        name: str | None = None,
        attach: bool = True,
        linger_ms: int | None = None,
    ) -> ClientProcess:
        """Start a process and, unless told otherwise, receive its output from the first byte.

        pty: a size, False for pipes, None for what the kind has by itself. linger_ms: end it so long after
        its
        last client has left. Raises RequestFailed with the server's code; ConnectionLost where it is not
        known
        whether the process was started.
        """
        message = m.Spawn(
            process_type=kind,
            command=command,
            args=list(args),
            options=m.SpawnOptions(cwd=cwd, env=dict(env) if env else None, timeout=timeout_ms),
            pty=m.PtySize(cols=pty.cols, rows=pty.rows) if isinstance(pty, PtySize) else pty,
            name=name,
            attach=attach,
            linger_ms=linger_ms,
        )
        made: list[ClientProcess] = []
        await self.request(
            message, m.Spawned, on_answer=lambda answer: made.append(self._spawned(answer, attach))
        )
        return made[0]

    async def attach(self, pid: int, from_: Origin | None = None, tail: int | None = None) -> ClientProcess:
        """Receive output: from an offset, the kept "start" (default), the "end", or the last `tail` bytes.

        Returns when everything kept from there has been received or is on its way to the consumer. Raises
        RequestFailed (unknown-process); ValueError if this client is attached to it already.
        """
        if pid in self._processes:
            raise ValueError(f"this client is attached to process {pid} already")
        process = self._processes[pid] = ClientProcess(self, pid)
        process.start_from(from_, tail)
        self.resync(process)
        try:
            async with asyncio.timeout(self._request_timeout_s):
                await process.until_ready()
        except TimeoutError:
            self.forget(process)
            raise RequestTimedOut(f"no answer to attach within {self._request_timeout_s:g} s") from None
        except BaseException:
            self.forget(process)
            raise
        return process

    def handle(self, pid: int) -> ClientProcess:
        """A process by its pid, to write to it or kill it without receiving its output."""
        return self._processes.get(pid) or ClientProcess(self, pid)

    async def list(self, *, all: bool = False) -> Sequence[m.ProcessInfo]:  # noqa: A002 - the protocol's word
        """The processes, as rows of the protocol; all: also ended ones that are still kept."""
        return (await self.request(m.List(all=all), m.ProcessList, resend=True)).processes

    async def status(self) -> m.StatusAnswer:
        """The server's settings and counters."""
        return await self.request(m.Status(), m.StatusAnswer, resend=True)

    async def ping(self) -> float:
        """A round trip; returns its duration in seconds."""
        start = self._clock()
        await self.request(m.Ping(), m.Pong, resend=True)
        return self._clock() - start

    async def stats(self, pid: int | None = None) -> Sequence[m.ProcessUsage]:
        """CPU time, memory and tasks of one process or of all."""
        return (await self.request(m.Stats(pid=pid), m.ProcessStats, resend=True)).processes

    async def push(self, files: Mapping[str, bytes | None]) -> m.PushResults:
        """Write files into the workspace; None makes a directory. One file's failure does not fail the rest.

        Raises RequestFailed when the server refuses the whole request.
        """
        results: m.PushResults = m.PushResults(synced=0, failed=0, errors=[])
        for batch in transfer.batches(files):
            message = m.Fsync(operation="push", files=batch)
            transfer.add(results, await self.request(message, m.FsyncResult, resend=True))
        return results

    async def pull(self) -> dict[str, bytes | None]:
        """Every file of the workspace by path; None for a directory."""
        return transfer.contents(await self.request(m.Fsync(operation="pull"), m.FsyncResult, resend=True))

    async def timeline(self, pid: int) -> Sequence[tuple[int, int]]:
        """(offset, epoch ms) of the kept pieces of output: when the byte at that offset was captured."""
        async with asyncio.timeout(self._request_timeout_s):
            return await read_timeline(self._session, self.url, self._token, pid, self._ssl_option)

    @property
    def hello(self) -> m.Connected:
        """The server's greeting on the newest connection."""
        assert self._hello is not None, "inside `async with` only"  # noqa: S101
        return self._hello

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
        before: bytes | None = None,
        on_answer: Callable[[m.Message], None] | None = None,
    ) -> M:
        """Send, wait for the answer with the same id. before: a binary frame that must go first.

        Raises RequestFailed, RequestTimedOut, ConnectionLost (not with resend), and what ended the connection
        for good.
        """
        try:
            async with asyncio.timeout(self._request_timeout_s):
                got = await self._exchange(message, resend, before, on_answer)
        except TimeoutError:
            raise RequestTimedOut(
                f"no answer to {_name(message)} within {self._request_timeout_s:g} s",
                hint=self._state_in_words(),
            ) from None
        if not isinstance(got, answer):
            raise ProtocolViolation(f"{_name(message)} was answered by {_name(got)}")
        return got

    async def send_now(self, message: m.Message | bytes) -> bool:
        """Send what needs no answer, if there is a connection; says whether there was."""
        link = self._link
        if link is None:
            return False
        if isinstance(message, bytes):
            await link.send_frame(message)
        else:
            await link.send(encode(message))
        return True

    async def send_when_connected(self, frame: bytes) -> None:
        """Send a binary frame, on the next connection if there is none. Raises RequestTimedOut."""
        try:
            async with asyncio.timeout(self._request_timeout_s):
                link = await self._usable_link()
        except TimeoutError:
            raise RequestTimedOut("no connection", hint=self._state_in_words()) from None
        await link.send_frame(frame)

    def resync(self, process: ClientProcess) -> None:
        """Ask for a process's output from where it is missing; without a connection, the next one does it."""
        if self._link is not None:
            task = asyncio.create_task(self._link.send(self._attach_payload(process)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def forget(self, process: ClientProcess) -> None:
        """Nothing of this process is wanted any more."""
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
        before: bytes | None,
        on_answer: Callable[[m.Message], None] | None,
    ) -> m.Message:
        link = await self._usable_link()
        number, waiting = self._pending.add(message, resend=resend, on_answer=on_answer)
        try:
            if before is not None:
                await link.send_frame(before)
            if link is self._link:
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
            self._session, self.url, self._token, ssl_option=self._ssl_option, heartbeat_s=self._heartbeat_s
        )

    async def _keep_connected(self, link: Link, unsent: Sequence[bytes]) -> None:
        while True:
            started = self._clock()
            code = await self._serve(link, unsent)
            self._link = None
            self._connected.clear()
            self._pending.connection_lost(code)
            if not self._reconnect:
                self._end(ConnectionLost(f"the connection to {self.url} was lost"))
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

    async def _redial(self) -> Link:
        """A new connection, however long it takes. Raises what no further attempt can mend."""
        while True:
            await self._sleep(self._backoff.next_delay_s())
            try:
                return await self._dial()
            except ConnectFailed as error:
                if not error.retry:
                    raise

    def _adopt(self, link: Link) -> Sequence[bytes]:
        """Make it the connection that requests use; returns what must be sent on it first.

        Processes of a server that lost its state are lost.
        """
        before, self._hello = self._hello, link.hello
        if before is not None and before.server_id != link.hello.server_id:
            for process in list(self._processes.values()):
                process.fail(lost(process.pid, "the server has started anew without its earlier state"))
            self._processes.clear()
        unsent = [*self._pending.to_resend(), *self._resumptions()]
        self._link = link
        self._connected.set()
        return unsent

    def _resumptions(self) -> Sequence[bytes]:
        """The messages by which every process goes on where it was."""
        payloads = []
        for process in self._processes.values():
            payloads.append(self._attach_payload(process))
            payloads.extend(encode(message) for message in process.resume_messages())
        return payloads

    async def _serve(self, link: Link, unsent: Sequence[bytes]) -> int:
        """Take in what comes until the connection ends; returns the close code."""
        # Sent while receiving: a server that is busy replaying reads nothing before somebody takes the
        # replay.
        resuming = asyncio.create_task(_send_all(link, unsent))
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
        process = self._processes.get(frame.pid)
        if process is not None:
            process.on_output(frame)

    def _on_message(self, message: m.Message | Unknown) -> None:
        if self._pending.settle(message):
            return
        process = self._processes.get(getattr(message, "pid", -1))
        if process is None:
            return
        if isinstance(message, m.Gap):
            process.on_gap(message)
        elif isinstance(message, m.ErrorMessage):
            process.on_error(message)
        elif isinstance(message, m.Exit):
            process.on_exit(message)
            if process.over:
                self.forget(process)

    def _attach_payload(self, process: ClientProcess) -> bytes:
        """An attach whose answer is handled where it arrives: nobody need be waiting for it."""
        number, waiting = self._pending.add(
            process.attach_message(), resend=False, on_answer=lambda answer: self._attached(process, answer)
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
        if isinstance(error, RequestFailed) and process.ready() and error.code == "unknown-process":
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
        for process in self._processes.values():
            process.fail(self._final)
        self._processes.clear()
        self._connected.set()

    def _tell(self, state: ConnectionState) -> None:
        if self._on_state is not None:
            self._on_state(state)

    def _state_in_words(self) -> str:
        return "" if self._link is not None else "there is no connection; the client goes on trying"


connect = Runtime


async def _send_all(link: Link, payloads: Sequence[bytes]) -> None:
    for payload in payloads:
        await link.send(payload)


def _name(message: m.Message) -> str:
    return str(message.__struct_config__.tag)
