"""The requests that wait for their answers, by id. Knows futures; must not know connections or processes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from mhnos_runtime.client.errors import ClientError, ConnectionLost, ProtocolViolation, RequestFailed
from mhnos_runtime.client.received import failure
from mhnos_runtime.client.received import number as number_of
from mhnos_runtime.wire import messages as m
from mhnos_runtime.wire.answers import Unknown
from mhnos_runtime.wire.encode import encode

_TOO_BIG = 1009  # WebSocket close code: the server will refuse the same message again


def _new_future() -> asyncio.Future[m.Message]:
    return asyncio.get_running_loop().create_future()


@dataclass(slots=True, eq=False)
class Waiting:
    """A request that waits. `resend`: it may be carried out twice, so it survives a lost connection.

    `on_answer` runs before any later message is looked at: what the answer names exists when they come.
    """

    payload: bytes
    resend: bool
    on_answer: Callable[[m.Message], None] | None
    future: asyncio.Future[m.Message] = field(default_factory=_new_future)

    def succeed(self, answer: m.Message) -> None:
        """Hand the answer over, unless the requester has gone."""
        if not self.future.done():
            if self.on_answer is not None:
                self.on_answer(answer)
            self.future.set_result(answer)

    def fail(self, error: ClientError) -> None:
        """Hand an error over. Where no task awaits it any more, asyncio is not to warn of that."""
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()


class PendingRequests:
    """Ids are integers from 1 and never used twice by one client."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._waiting: dict[int, Waiting] = {}

    def add(
        self, message: m.Message, *, resend: bool, on_answer: Callable[[m.Message], None] | None = None
    ) -> tuple[int, Waiting]:
        """Number the message and remember it."""
        number = next(self._ids)
        message.id = msgspec.Raw(b"%d" % number)
        self._waiting[number] = waiting = Waiting(encode(message), resend, on_answer)
        return number, waiting

    def discard(self, number: int) -> None:
        """Forget a request: its answer is not awaited any more."""
        self._waiting.pop(number, None)

    def settle(self, message: m.Message | Unknown) -> bool:
        """Hand an answer to its request. False: the message answers none."""
        waiting = self._waiting.pop(number_of(message.id), None)
        if waiting is None:
            return False
        if isinstance(message, m.ErrorMessage):
            waiting.fail(failure(message))
        elif isinstance(message, Unknown):
            waiting.fail(ProtocolViolation(f"the answer was not understood: {message.reason}"))
        else:
            waiting.succeed(message)
        return True

    def connection_lost(self, close_code: int) -> None:
        """Fail the requests that may not be sent again; the rest stays for `to_resend`."""
        for number, waiting in list(self._waiting.items()):
            if close_code == _TOO_BIG:
                waiting.fail(RequestFailed("the message is larger than the server takes", code="too-large"))
            elif not waiting.resend:
                waiting.fail(ConnectionLost("the connection was lost before the answer came"))
            if waiting.future.done():
                del self._waiting[number]

    def to_resend(self) -> list[bytes]:
        """The requests to send on a new connection, in their order."""
        return [waiting.payload for waiting in self._waiting.values()]

    def fail_all(self, error: ClientError) -> None:
        """The end: no answer will come."""
        for waiting in self._waiting.values():
            waiting.fail(error)
        self._waiting.clear()
