"""What this client types into one process, exactly once: a bounded window of bytes that are not acknowledged.

Knows offsets and numbered frames; must not know sockets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mhnos_runtime.client.carrier import Carrier
from mhnos_runtime.client.errors import ClientError, ConnectionLost, RequestFailed, RequestTimedOut
from mhnos_runtime.client.received import failure
from mhnos_runtime.client.types import InputUncertain
from mhnos_runtime.wire import frames
from mhnos_runtime.wire import messages as m

# bytes; as much as the server keeps for a process that does not read: one client alone never fills it
WINDOW_BYTES = 1024 * 1024
FRAME_BYTES = 64 * 1024  # a large paste must not keep keys for other processes waiting
REFUSED_FIRST_WAIT_S = 0.005
REFUSED_LONGEST_WAIT_S = 0.25
# What passes: another client has filled the queue, or a frame in front of this one was refused.
_PASSING = frozenset({"input-full", "input-gap", "not-negotiated"})


class InputWindow:
    """Bytes from `acknowledged` on are kept until the server says that they were typed.

    The invariant: what the server has typed is a prefix of what was written, each byte once; where a server
    was killed while it typed, `uncertain` says which bytes may be missing.
    """

    def __init__(self, carrier: Carrier, pid: int) -> None:
        self.pid = pid
        self.acknowledged = 0
        self.uncertain: list[InputUncertain] = []
        self._carrier = carrier
        self._window = bytearray()
        self._sent = 0
        self._open = False
        self._refused = False
        self._wait_s = REFUSED_FIRST_WAIT_S
        self._error: ClientError | None = None
        self._work = asyncio.Event()
        self._moved = asyncio.Event()
        self._order = asyncio.Lock()

    @property
    def end(self) -> int:
        """The position after the last byte that was written."""
        return self.acknowledged + len(self._window)

    # What callers use

    async def write(self, data: bytes) -> None:
        """Take everything, as room comes; return when all of it was typed. Raises why it cannot be."""
        view = memoryview(data)
        async with self._order:
            while view:
                await self._until(lambda: len(self._window) < WINDOW_BYTES)
                count = min(len(view), WINDOW_BYTES - len(self._window))
                self._append(view[:count])
                view = view[count:]
            end = self.end
        await self._until(lambda: self.acknowledged >= end)

    def write_nowait(self, data: bytes) -> None:
        """Take everything or nothing. Raises RequestFailed (input-full), and why it cannot be typed."""
        if len(self._window) + len(data) > WINDOW_BYTES and self._error is None:
            raise RequestFailed("too much input is not acknowledged", code="input-full", retry=True)
        self._append(data)

    async def settled(self) -> None:
        """Until everything was typed. Raises why it cannot be."""
        await self._until(lambda: not self._window)

    # What the runtime uses

    async def run(self) -> None:
        """Send what has to be sent, again where that is needed, until `fail`."""
        while self._error is None:
            self._work.clear()
            try:
                if self._window and not self._open:
                    await self._begin()
                elif self._sent < self.end:
                    await self._send()
                else:
                    await self._work.wait()
            except (ConnectionLost, RequestTimedOut):
                continue  # on the next connection again
            except ClientError as error:
                self.fail(error)

    def on_message(self, message: object) -> None:
        """What the server says of this process."""
        if isinstance(message, m.InputAck):
            self._acknowledge(message.next)
        elif isinstance(message, m.ErrorMessage):
            self._refuse(message)
        elif isinstance(message, m.Exit):
            self.fail(RequestFailed("the process has ended", code="input-closed"))

    def _acknowledge(self, next_: int) -> None:
        count = min(next_, self.end) - self.acknowledged
        if count > 0:
            del self._window[:count]
            self.acknowledged += count
            self._sent = max(self._sent, self.acknowledged)
            self._wait_s = REFUSED_FIRST_WAIT_S
            self._moved.set()

    def _refuse(self, message: m.ErrorMessage) -> None:
        if message.code in _PASSING:
            self._open, self._refused = False, True
            self._work.set()
        else:
            self.fail(failure(message))

    def on_lost(self) -> None:
        """There is no connection: what was sent on it may not have arrived."""
        self._open = False
        self._work.set()

    def fail(self, error: ClientError) -> None:
        """Nothing more can be typed, and why."""
        self._error = self._error or error
        self._work.set()
        self._moved.set()

    # Inside

    def _append(self, data: bytes | memoryview) -> None:
        if self._error is not None:
            raise self._error
        self._window += data
        self._work.set()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            if self._error is not None:
                raise self._error
            self._moved.clear()
            await self._moved.wait()

    async def _begin(self) -> None:
        """Learn where to go on. Errors about frames that were sent before come before this answer."""
        if self._refused:
            await self._carrier.sleep(self._wait_s)
            self._wait_s = min(self._wait_s * 2, REFUSED_LONGEST_WAIT_S)
        message = m.OpenInput(pid=self.pid, client=self._carrier.client_name)
        await self._carrier.request(message, m.InputOpened, on_answer=self._begun)

    def _begun(self, answer: m.Message) -> None:
        if not isinstance(answer, m.InputOpened):
            return
        if answer.next < self.acknowledged:
            self.fail(
                RequestFailed(
                    "the server has forgotten what was typed: too many clients type", code="input-lost"
                )
            )
            return
        if isinstance(answer.uncertain_from, int):
            self._note_uncertain(max(answer.uncertain_from, self.acknowledged), min(answer.next, self.end))
        self._acknowledge(answer.next)
        self._sent = self.acknowledged
        self._open, self._refused = True, False

    def _note_uncertain(self, from_: int, to: int) -> None:
        if from_ < to:
            start = from_ - self.acknowledged
            data = bytes(self._window[start : start + to - from_])
            uncertain = InputUncertain(self.pid, from_, to, data)
            self.uncertain.append(uncertain)
            self._carrier.tell_uncertain(uncertain)

    async def _send(self) -> None:
        start = self._sent - self.acknowledged
        piece = bytes(self._window[start : start + FRAME_BYTES])
        header = frames.pack_header(frames.INPUT, frames.NUMBERED, self.pid, self._sent)
        self._sent += len(piece)
        await self._carrier.send_now(header + piece)
