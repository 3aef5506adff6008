"""One process of a runtime, as its caller holds it. Must not know sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Literal, TypeAlias

from msgspec import UNSET, UnsetType

from mhnos_runtime.client.carrier import Carrier
from mhnos_runtime.client.errors import ClientError, ProcessLost, ProtocolViolation
from mhnos_runtime.client.inbox import Flow, Inbox
from mhnos_runtime.client.types import ExitInfo, Gap, InputUncertain, Output, PtySize, Stream
from mhnos_runtime.wire import frames
from mhnos_runtime.wire import messages as m

# bytes; small enough that an acknowledgement moves well before a retention of 1 MiB is full, and large
# enough that a flood costs one small message for each two full frames
ACK_BYTES = 128 * 1024
# of the retention, where that is small: the server waits for a viewer that acknowledges, so it must never
# have to wait for an acknowledgement that waits for more output
ACK_RETENTION_SHARE = 4

Origin: TypeAlias = int | Literal["start", "end"]


class ClientProcess:
    """A running or ended process. One consumer of `output`; any number of callers of everything else.

    repaint_on_resume: whoever shows the output sets it while a full-screen program has to draw its screen
    anew after a lost connection. The grant must have `control` then.
    """

    def __init__(self, carrier: Carrier, pid: int, *, expected: int | None = None) -> None:
        self.pid = pid
        self.info: m.ProcessInfo | None = None
        self.readiness: m.Readiness | None = None
        self.ports: list[m.Port] = []
        self.on_news_told: Callable[[], None] = lambda: None
        self.attached_at: int | None = None
        self.repaint_on_resume = False
        self._carrier = carrier
        self._origin: Origin | None = None
        self._tail: int | None = None
        self._since: int | None = None
        self._repaint = False
        self._inbox = Inbox(expected)
        self._acked = 0
        self._consuming = False
        self._detached = False
        self._exit: ExitInfo | None = None
        self._error: ClientError | None = None
        self._changed = asyncio.Event()
        self._ready = asyncio.Event()
        self._ended = asyncio.Event()
        self._news = asyncio.Event()
        self._size: PtySize | None = None

    # What callers use

    async def output(self) -> AsyncIterator[Output | Gap]:
        """Every byte from where this was attached to the end, in order, each once; gaps where they are.

        Goes on over reconnections. A consumer that is slow is waited for as long as the server allows; before
        there is one, nothing waits. Raises ProcessLost, ProtocolViolation, and what ended the runtime's
        connection for good.
        """
        self._consuming = True
        while True:
            self._changed.clear()
            item = self._inbox.take()
            if item is not None:
                yield item
                await self._acknowledge()
            elif self._error is not None:
                raise self._error
            elif self._detached or (self._exit is not None and self._inbox.flow is Flow.FLOWING):
                return
            else:
                await self._changed.wait()

    async def wait(self) -> ExitInfo:
        """Until the process has ended; output need not be consumed for it. Raises as `output` does."""
        await self._ended.wait()
        if self._exit is not None:
            return self._exit
        raise self._error or ClientError(f"detached from process {self.pid}", code="detached")

    @property
    def exit(self) -> ExitInfo | None:
        """How it ended; None until the server has told so."""
        return self._exit

    @property
    def consumed(self) -> int | None:
        """The offset up to which `output` has handed everything out; None while that is not known."""
        return self._inbox.consumed

    async def write(self, data: bytes | str) -> None:
        """Type into the process; returns when it has been given everything, waits while it does not read.

        Exactly once, over lost connections and killed servers; what cannot be known is told, see
        `uncertain_input`. One that is cancelled has been typed in part, or will be. Raises RequestFailed
        (such as input-closed), and what ended the runtime's connection for good.
        """
        await self._carrier.input(self.pid).write(data.encode() if isinstance(data, str) else data)

    def write_nowait(self, data: bytes | str) -> None:
        """Type, as `write`, without waiting: for keys. Up to 1 MiB is kept until it can be typed.

        Raises RequestFailed: input-full where more waits already, or why an earlier write failed.
        """
        self._carrier.input(self.pid).write_nowait(data.encode() if isinstance(data, str) else data)

    @property
    def uncertain_input(self) -> Sequence[InputUncertain]:
        """What was being typed when a server was killed; see also the runtime's `on_uncertain`."""
        return self._carrier.input(self.pid).uncertain

    async def close_stdin(self) -> None:
        """End the process's input, after everything written. Raises RequestFailed."""
        await self._carrier.input(self.pid).settled()
        await self._carrier.request(m.CloseStdin(pid=self.pid), m.StdinClosed, resend=True)

    async def resize(self, cols: int, rows: int) -> None:
        """Set the size of the process's terminal, in cells; without a connection, the next one sets it."""
        self._size = PtySize(cols, rows)
        await self._carrier.send_now(m.Resize(pid=self.pid, cols=cols, rows=rows))

    async def kill(self, signal: str = "SIGTERM", escalate: bool | None = None) -> None:
        """Send a signal to the process and all its descendants. Returns when they have ended, or, without
        escalation, when it was sent. escalate: follow it with SIGHUP and SIGKILL; None: as the signal has it.
        Raises RequestFailed (unknown-signal).
        """
        message = m.Kill(pid=self.pid, signal=signal, escalate=escalate)
        await self._carrier.request(message, m.Killed, resend=True)

    async def until_serving(self) -> m.Readiness | None:
        """Until the process is known to serve, or not to. None: it ended, and is of a kind without readiness.

        Raises as `wait`.
        """
        while self.readiness is None or self.readiness.state == "starting":
            if self._ended.is_set():
                await self.wait()
                return self.readiness
            self._news.clear()
            await self._news.wait()
        return self.readiness

    async def token(self) -> str | None:
        """The token that the runtime made for the process, such as OpenClaw's; None for one that has none.

        Raises RequestFailed (unknown-process).
        """
        answer = await self._carrier.request(m.Credentials(pid=self.pid), m.CredentialsAnswer, resend=True)
        return answer.token

    async def timeline(self) -> list[tuple[int, int]]:
        """When the kept output was captured, as (offset, epoch ms) in order: what is from one offset up to
        the next came then, within a second. Raises RequestFailed (unknown-process)."""
        times: list[tuple[int, int]] = []
        from_: int | None = 0
        while from_ is not None:
            page = await self._carrier.request(
                m.Timeline(pid=self.pid, from_=from_), m.TimelineAnswer, resend=True
            )
            times += page.times
            from_ = page.next
        return times

    async def detach(self) -> None:
        """Receive no more; the process goes on. `output` ends behind what has come, and `wait` raises
        ClientError (detached). To come back, attach anew.
        """
        await self._carrier.request(m.Detach(pid=self.pid), m.Detached, resend=True)
        self._carrier.forget(self)
        self._detached = True
        self._wake()

    # What the runtime uses

    def ready(self) -> bool:
        """Whether the first attach has been answered."""
        return self._ready.is_set()

    async def until_ready(self) -> None:
        """Until the first attach has been answered. Raises what it was answered with."""
        await self._ready.wait()
        if self._error is not None:
            raise self._error

    def mark_ready(self) -> None:
        """The server attached this client when it started the process: there is no first attach to wait
        for."""
        self._ready.set()

    def start_from(
        self, origin: Origin | None, tail: int | None, repaint: bool, since: int | None = None
    ) -> None:
        """Where the first attach starts, and whether the program is to draw its screen anew."""
        self._origin, self._tail, self._since, self._repaint = origin, tail, since, repaint
        self._inbox = Inbox(origin if isinstance(origin, int) else None)

    def attach_message(self, *, resumed: bool = False) -> m.Attach:
        """The request that brings what is missing. resumed: on a new connection."""
        self._inbox.begin_sync()
        if self._inbox.expected is None:
            return m.Attach(
                pid=self.pid,
                from_=self._origin,
                tail=self._tail,
                since=self._since,
                repaint=self._repaint,
                acks=True,
            )
        repaint = self.repaint_on_resume if resumed and self.ready() else self._repaint and not self.ready()
        return m.Attach(pid=self.pid, from_=self._inbox.expected, repaint=repaint, acks=True)

    def resume_messages(self) -> list[m.Message]:
        """What a new connection is told besides the attach: the size of the terminal."""
        if self._size is None:
            return []
        return [m.Resize(pid=self.pid, cols=self._size.cols, rows=self._size.rows)]

    @property
    def over(self) -> bool:
        """Whether nothing more can come."""
        return self._error is not None or (self._exit is not None and self._inbox.flow is Flow.FLOWING)

    def on_output(self, frame: frames.DataFrame) -> None:
        """A data frame of this process."""
        stream: Stream = "stderr" if frame.kind == frames.STDERR else "stdout"
        self._take(lambda: self._inbox.output(stream, frame.offset, bytes(frame.payload)))
        next_ = frame.offset + len(frame.payload)
        if not self._consuming and self._ack_is_due(next_):
            self._carrier.tell(m.Ack(pid=self.pid, offset=next_))

    def on_gap(self, gap: m.Gap) -> None:
        """The server no longer keeps a range."""
        self._take(lambda: self._inbox.gap(gap.from_, gap.to))

    def on_attached(self, answer: m.Attached) -> None:
        """The replay is complete. The exit on a record is not the end: output and `exit` still come."""
        if isinstance(answer.from_, int) and isinstance(answer.next, int):
            from_, next_ = answer.from_, answer.next
            self._take(lambda: self._inbox.synced(from_, next_))
            self.attached_at = next_ if self.attached_at is None else self.attached_at
        if isinstance(answer.process, m.ProcessInfo):
            self.info = answer.process
            self._learn(answer.process.ready, answer.process.ports)
        self._ready.set()
        self._changed.set()

    def on_news(self, message: m.Ready | m.Ports) -> None:
        """Whether it serves, or where."""
        if isinstance(message, m.Ports):
            self._learn(UNSET, message.ports)
        else:
            self._learn(m.Readiness(message.state, message.reason), UNSET)

    def _learn(self, readiness: m.Readiness | UnsetType, ports: list[m.Port] | UnsetType) -> None:
        before = self.readiness, self.ports
        if isinstance(readiness, m.Readiness):
            self.readiness = readiness
        if isinstance(ports, list):
            self.ports = ports
        if before != (self.readiness, self.ports):
            self._news.set()
            self.on_news_told()

    def on_exit(self, message: m.Exit) -> None:
        """The process has ended; its last output came before this."""
        self._end(exit_of_event(message))

    def on_replay(self, replay: m.Replay) -> None:
        """What follows was written before this attach. After the first one this client has been there."""
        if not self.ready():
            self._inbox.replays_to(replay.to)

    def fail(self, error: ClientError) -> None:
        """Nothing more will come, and why."""
        self._error = self._error or error
        self._ready.set()
        self._wake()

    def _take(self, into_inbox: Callable[[], None]) -> None:
        """A violation of the protocol ends this process's output, not the connection."""
        try:
            into_inbox()
        except ProtocolViolation as error:
            self.fail(error)
        self._changed.set()

    def _end(self, exit_: ExitInfo) -> None:
        self._exit = self._exit or exit_
        self._wake()

    def _wake(self) -> None:
        """Nothing more comes: everyone who waits looks why."""
        self._ended.set()
        self._news.set()
        self._changed.set()

    async def _acknowledge(self) -> None:
        if self._inbox.wants_replay:
            self._carrier.resync(self)
        consumed = self._inbox.consumed or 0
        if self._ack_is_due(consumed):
            await self._carrier.send_now(m.Ack(pid=self.pid, offset=consumed))

    def _ack_is_due(self, offset: int) -> bool:
        retention = self._carrier.retention_bytes or ACK_BYTES * ACK_RETENTION_SHARE
        due = offset - self._acked >= min(ACK_BYTES, max(1, retention // ACK_RETENTION_SHARE))
        if due:
            self._acked = offset
        return due


def lost(pid: int, why: str) -> ProcessLost:
    """The error for a process that the server does not know any more."""
    hint = "`mhnos-runtime ps -a` lists what the server knows"
    return ProcessLost(f"process {pid} is lost: {why}", hint=hint)


def exit_of_event(event: m.Exit) -> ExitInfo:
    """From the message that tells of it; what a server of 1.0 leaves out is not known."""
    return ExitInfo(
        event.code,
        event.signal,
        event.reason if isinstance(event.reason, str) else ("signal" if event.signal else "exit"),
        event.evidence if isinstance(event.evidence, str) else "",
        event.runtime,
        event.cpu_ms if isinstance(event.cpu_ms, int) else None,
        event.max_rss_bytes if isinstance(event.max_rss_bytes, int) else None,
        event.bytes if isinstance(event.bytes, int) else None,
        failure=event.failure if isinstance(event.failure, str) else "",
    )
