"""The server's end of the control channel. Knows the supervisor's messages; not what a client asked for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from mhnos_runtime.channel import ALIVE, MOVED, OUTPUT, RETRY_SECONDS, TYPED, Channel, Disconnected, Message
from mhnos_runtime.errors import InvalidRequest, MhnosError, Unavailable
from mhnos_runtime.launch import (
    ExitRecord,
    Hello,
    LaunchPlan,
    ProcessDescriptors,
    ProcessRecord,
    StartDescriptors,
)
from mhnos_runtime.process.facts import Found
from mhnos_runtime.server.processes.room import none_left


class Listener(Protocol):
    """Who is told what the supervisor says. on_process takes the descriptors over, unless it raises; by: the
    principal who asked this server for it."""

    def on_process(
        self, record: ProcessRecord, descriptors: ProcessDescriptors, new: bool, by: str
    ) -> object: ...

    def on_ready(self) -> None: ...

    def on_output(self, pid: int) -> None: ...

    def on_exit(self, pid: int, exit_record: ExitRecord) -> None: ...

    def on_supervisor_gone(self) -> None: ...


class Waiting(NamedTuple):
    """A start that is under way. by: the principal who asked for it."""

    answer: asyncio.Future[int]
    by: str


class SupervisorLink:
    """Sends requests, matches answers to them, and tells a listener what the supervisor reports."""

    def __init__(self, channel: Channel, loop: asyncio.AbstractEventLoop) -> None:
        self._channel = channel
        self._loop = loop
        self._listener: Listener
        self._crowded: Callable[[], bool] = bool
        self._spawning: dict[int, Waiting] = {}
        # Different for each server, so that no answer to an earlier one is taken for one to this.
        self._last_request = os.getpid() << 32
        self._writing = False
        self._retry: asyncio.TimerHandle | None = None
        self._for_room: list[Callable[[], None]] = []
        # By pid: what is to be noted when the supervisor has taken what was sent before.
        self._noted: dict[int, Found] = {}

    async def hello(self) -> Hello:
        """What the supervisor says first; to be awaited once, before `listen`. Raises Disconnected and
        OtherVersion."""
        fd = self._channel.fileno()
        while (message := self._channel.receive()) is None:
            readable = asyncio.Event()
            self._loop.add_reader(fd, readable.set)
            try:
                await readable.wait()
            finally:
                self._loop.remove_reader(fd)
        return Hello.from_dict(message.body)

    def listen(self, listener: Listener, crowded: Callable[[], bool]) -> None:
        """Tell the listener what comes from now on. crowded: whether large output waits for its turn."""
        self._listener = listener
        self._crowded = crowded
        self._loop.add_reader(self._channel.fileno(), self._readable)

    def close(self) -> None:
        """Tell the listener nothing more, and send no more of what waits. The channel stays the caller's."""
        self._loop.remove_reader(self._channel.fileno())
        self._loop.remove_writer(self._channel.fileno())
        self._writing = False
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    async def spawn(self, plan: LaunchPlan, descriptors: StartDescriptors, by: str = "") -> int:
        """Have a program started; return its pid, of which the listener has been told by then, with the
        principal who asks for it. The descriptors stay the caller's.

        Raises the supervisor's refusal, InvalidRequest (too-large), LimitReached (start-failed) where the
        listener cannot take the process over, Unavailable at the end of the supervisor, and OSError where the
        request has to wait and its descriptors cannot be duplicated.
        """
        self._last_request += 1
        number = self._last_request
        answer: asyncio.Future[int] = self._loop.create_future()
        self._spawning[number] = Waiting(answer, by)
        try:
            self._send({"do": "spawn", "request": number, "plan": plan.to_request()}, descriptors.sent())
            return await answer
        except ValueError as error:
            raise InvalidRequest(
                f"command, arguments and environment are too long: {error}",
                code="too-large",
                hint="put them in a file",
            ) from error
        finally:
            del self._spawning[number]

    def kill(self, pid: int, number: int, reason: str, escalate: bool) -> None:
        self._send({"do": "kill", "pid": pid, "signal": number, "reason": reason, "escalate": escalate})

    def close_stdin(self, pid: int) -> None:
        self._send({"do": "close_stdin", "pid": pid})

    def size(self, pid: int, columns: int, rows: int) -> None:
        self._send({"do": "size", "pid": pid, "columns": columns, "rows": rows})

    def note(self, pid: int, found: Found) -> None:
        """Change the facts that the next server finds about a process. Each time the supervisor writes a
        file: those that have to wait become one, or a client that renames without end would fill the channel
        with them, and this server would be taken for one that hangs."""
        before = self._noted.get(pid)
        self._noted[pid] = found if before is None else before.followed_by(found)
        self._send_noted()

    def _send_noted(self) -> None:
        while self._noted and not self._channel.pending:
            pid = next(iter(self._noted))
            self._send({"do": "note", "pid": pid, "found": self._noted.pop(pid).to_plain()})

    def forget(self, pid: int) -> None:
        self._noted.pop(pid, None)
        self._send({"do": "forget", "pid": pid})

    def discard(self, pid: int) -> None:
        """End a process that could not be taken over. The supervisor reports nothing of it any more."""
        self._send({"do": "discard", "pid": pid})

    @property
    def waiting(self) -> int:
        """Messages that the supervisor has no room for yet."""
        return len(self._channel.pending)

    @property
    def congested(self) -> bool:
        """Whether many wait, so that who adds to them has to wait too."""
        return self._channel.congested

    def when_room(self, callback: Callable[[], None]) -> None:
        """Call back, once, when it is `congested` no more; never after the end of the supervisor."""
        self._for_room.append(callback)

    def token(self, known: dict[str, Any] | None) -> None:
        """Keep for the next server what is known of the token."""
        self._send({"do": "token", "token": known})

    def alive(self) -> None:
        """The event loop turns."""
        self._guard(lambda: self._channel.notify(ALIVE, 0))

    def moved(self, pid: int) -> None:
        """The hold that the process waits for has moved."""
        self._guard(lambda: self._channel.notify(MOVED, pid))

    def typed(self, pid: int) -> None:
        """A key for the process's terminal is on its way."""
        self._guard(lambda: self._channel.notify(TYPED, pid))

    def _send(self, body: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        self._guard(lambda: self._channel.send(body, descriptors))

    def _guard(self, action: Callable[[], None]) -> None:
        """Do something with the channel, and then wait for it as long as messages are pending."""
        try:
            action()
        except Disconnected:
            self._gone()
            return
        if self._channel.postponed and self._retry is None:
            self._retry = self._loop.call_later(RETRY_SECONDS, self._try_again)
        if (bool(self._channel.pending) and not self._channel.postponed) != self._writing:
            self._writing = not self._writing
            if self._writing:
                self._loop.add_writer(self._channel.fileno(), self._flush)
            else:
                self._loop.remove_writer(self._channel.fileno())

    def _try_again(self) -> None:
        self._retry = None
        self._flush()

    def _flush(self) -> None:
        self._guard(self._channel.flush)
        self._send_noted()
        while self._for_room and not self._channel.congested:
            self._for_room.pop(0)()

    def _readable(self) -> None:
        """Receive one message; while large output waits for its turn, all that have arrived: one of them may
        tell of small output, which goes first."""
        while self._receive() and self._crowded():
            pass

    def _receive(self) -> bool:
        """Handle the next message. False when there is none."""
        try:
            message = self._channel.receive()
        except Disconnected:
            self._gone()
            return False
        if message is None:
            return False
        if message.kind == OUTPUT:
            self._listener.on_output(message.pid)
        else:
            self._on_event(message)
        return True

    def _on_event(self, message: Message) -> None:
        body = message.body
        match body["event"]:
            case "spawned" | "restored":
                self._on_process(message, ProcessRecord.from_dict(body["record"]))
            case "refused":
                self._answer(body["request"], _error(body))
            case "exited":
                self._listener.on_exit(body["pid"], ExitRecord.from_dict(body["exit"]))
            case "ready":
                self._listener.on_ready()
            case _:
                for fd in message.descriptors:
                    os.close(fd)

    def _on_process(self, message: Message, record: ProcessRecord) -> None:
        """All or nothing: no process may run that this server cannot list, read and end."""
        new, request = message.body["event"] == "spawned", message.body.get("request")
        try:
            # None come with a process that was forgotten before the message was sent.
            if not message.whole or not message.descriptors:
                raise none_left()
            received = ProcessDescriptors.received(message.descriptors, record.control)
            waiting = self._spawning.get(request) if request is not None else None
            self._listener.on_process(record, received, new, waiting.by if waiting is not None else "")
            message.descriptors.clear()
        except (OSError, MhnosError) as error:
            if new or record.exit is None:
                self.discard(record.pid)
            self._answer(request, error if isinstance(error, MhnosError) else none_left())
        else:
            self._answer(request, record.pid)
        finally:
            for fd in message.descriptors:
                os.close(fd)

    def _answer(self, number: int | None, result: int | MhnosError) -> None:
        waiting = self._spawning.get(number) if number is not None else None
        if waiting is None or waiting.answer.done():
            return
        if isinstance(result, MhnosError):
            waiting.answer.set_exception(result)
        else:
            waiting.answer.set_result(result)

    def _gone(self) -> None:
        self.close()
        for waiting in self._spawning.values():
            if not waiting.answer.done():
                waiting.answer.set_exception(Unavailable("the runtime is stopping"))
        self._listener.on_supervisor_gone()


def _error(body: dict[str, Any]) -> MhnosError:
    return MhnosError(body["message"], code=body["code"], hint=body["hint"], retry=body["retry"])
