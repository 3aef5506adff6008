"""Accepts connections, and bounds what strangers may cost, who are those whose latest request has shown no
right token: their number, their time, their bytes. Knows sockets and protocols, neither HTTP nor tokens."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from typing import cast

from mhnos_runtime.errors import LimitReached
from mhnos_runtime.observe.limit import LimitedLog
from mhnos_runtime.server.auth.refusals import rate_key

#: Connections without a right token, of all addresses, and of one. One that is let in too many is closed: the
#: oldest of the address that has the most.
MAX_STRANGERS = 64
MAX_STRANGERS_OF_AN_ADDRESS = 32
#: For so long a newcomer is counted by MAX_NEWCOMERS only: a hundred clients of one address that come back
#: together each need a moment to show their token.
NEW_SECONDS = 1.0
MAX_NEWCOMERS = 256
#: From the connection, or the first byte of a later request, to its answer, a TLS handshake included.
REQUEST_SECONDS = 10.0
#: How long a connection may wait for its next request.
IDLE_SECONDS = 60.0
#: Of one request, its body included, unless the body is a transfer. A head has 8 KiB a line at most.
MAX_REQUEST_BYTES = 64 * 1024
#: Who has sent more than that is read no further until his request is answered or becomes a transfer. By then
#: one read of the socket has come, of up to 256 KB; so many connections may have that.
MAX_HELD = 64
#: A transfer ends when the other side has neither sent nor taken a byte for so long while it was waited for.
STALL_SECONDS = 60.0
#: Transfers at the same time, and those of one principal: each has up to 1 MiB in buffers.
MAX_TRANSFERS = 48
MAX_TRANSFERS_OF_ONE = 40
#: How long the other side may take to end TLS.
_TLS_END_SECONDS = 5.0
#: Connections that are accepted before those that are there get their turn: more than MAX_STRANGERS may come
#: between two turns of the event loop, and who is quick is to be answered before he has to give way.
_ACCEPTS_A_TURN = 8
#: How long nobody is accepted when there are no descriptors for it.
_FULL_SECONDS = 0.1


class Visitor(asyncio.Protocol):
    """One connection until it is a WebSocket: stands between the transport and the protocol of HTTP. It makes
    that when there is something for it, passes everything on, and ends both when a request takes too long or
    too many bytes."""

    def __init__(self, door: Door, connection: socket.socket, key: str) -> None:
        """key: what its address is counted by."""
        self.key = key
        self._door = door
        # Who says nothing costs no protocol.
        self._inner: asyncio.Protocol | None = None
        self._connection = connection
        self._transport: asyncio.Transport | None = None
        self._idle = False
        self._bytes = 0
        # Whether MAX_REQUEST_BYTES counts.
        self._bounded = True
        self._answered = False
        # Whether its latest request showed no right token: then it is not waited for.
        self._refused = False
        # While it is waited for.
        self._broken: Callable[[], bool] | None = None
        # How often the other side has taken what was buffered for it.
        self._taken = 0
        self._loop = asyncio.get_running_loop()
        self._deadline: asyncio.TimerHandle | None = None
        self._expect(REQUEST_SECONDS)
        self._arrival = self._loop.create_task(self._arrive())

    def close(self) -> None:
        """End the connection at once, in whatever state it is."""
        if self._transport is not None:
            self._transport.abort()
        else:
            self._arrival.cancel()
            # The transport, if there is one already, keeps the descriptor until it is closed itself.
            self._connection.close()
            self._left()

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """While a request is answered: after it, the connection may wait for the next one."""
        self._answered = self._bounded = True
        try:
            yield
        finally:
            self._answered = False
            if self._deadline is not None:
                self._idle, self._bytes = True, 0
                self._expect(IDLE_SECONDS)
                self._door.renew(self)
                self._read_on()

    @contextlib.contextmanager
    def transfer(self, principal: str) -> Iterator[None]:
        """While a body of any size goes over the connection, in either direction: it may take as long as the
        other side goes on. Raises LimitReached."""
        with self._door.transfers.entered(principal):
            self._bounded = False
            self._read_on()
            if self._deadline is not None:
                self._look_for_progress(None)
            try:
                yield
            finally:
                self._bounded = True
                if self._deadline is not None:
                    self._expect(REQUEST_SECONDS)

    @contextlib.contextmanager
    def awaited(self, broken: Callable[[], bool]) -> Iterator[None]:
        """While a transfer waits for bytes of the other side. broken: whether what came is no body, so that
        its end will not come either."""
        self._broken = broken
        try:
            yield
        finally:
            self._broken = None

    @property
    def overran(self) -> bool:
        """More came with the request than a request has, and its handler made no transfer of it: what is
        behind it, such as thousands of requests more, is not to be answered."""
        return self in self._door.held

    def linger(self) -> None:
        """The rest of a body comes that nobody reads, and the connection is about to be closed: who may send
        bodies at all is to see the answer, and not that his bytes were refused."""
        self._bounded = self in self._door.strangers

    def welcome(self) -> None:
        """A right token was shown: it is no stranger any more."""
        self._refused = False
        self._door.forget(self)

    def estrange(self) -> None:
        """Its latest request showed no right token: whatever it showed before, it is a stranger (again)."""
        self._refused = True
        if self._deadline is not None:
            self._door.count(self)

    def stay(self) -> None:
        """It is a WebSocket, which has limits of its own."""
        self.welcome()
        self._stop_clock()
        self._read_on()

    async def _arrive(self) -> None:
        """Until the transport is there, which takes as long as the handshake of TLS."""
        tls = self._door.tls
        times = {} if tls is None else {"ssl_handshake_timeout": REQUEST_SECONDS}
        if tls is not None:
            times["ssl_shutdown_timeout"] = _TLS_END_SECONDS
        try:
            await self._loop.connect_accepted_socket(lambda: self, self._connection, ssl=tls, **times)
        except OSError:
            # SSLError is one as well: no handshake, or the client has gone already.
            self.close()

    def _expect(self, seconds: float) -> None:
        self._stop_clock()
        self._deadline = self._loop.call_later(seconds, self.close)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _look_for_progress(self, before: tuple[int, int, int] | None) -> None:
        """before: what was seen half of the time ago. A server that is busy with its disk is no stall."""
        transport = cast(asyncio.Transport, self._transport)
        waiting = transport.get_write_buffer_size()
        now = (self._bytes, self._taken, waiting)
        if now == before and (self._broken or waiting):
            self.close()
            return
        self._stop_clock()
        self._deadline = self._loop.call_later(STALL_SECONDS / 2, self._look_for_progress, now)

    def _left(self) -> None:
        self._stop_clock()
        self._door.forget(self)
        self._door.held.discard(self)

    def _hold(self) -> None:
        """Read no further until the request is answered or is a transfer."""
        self._door.held.add(self)
        cast(asyncio.Transport, self._transport).pause_reading()
        # The handler of a request whose head is complete has begun by the turn after next.
        self._loop.call_soon(self._loop.call_soon, self._require_head)

    def _require_head(self) -> None:
        if self in self._door.held and not self._answered:
            self.close()

    def _read_on(self) -> None:
        if self in self._door.held:
            self._door.held.remove(self)
            cast(asyncio.Transport, self._transport).resume_reading()

    # What the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._idle:
            self._idle = False
            self._expect(REQUEST_SECONDS)
        self._bytes += len(data)
        too_much = self._bounded and self._bytes > MAX_REQUEST_BYTES and self._deadline is not None
        held = self._door.held
        if too_much and (self._refused or self in held or len(held) >= MAX_HELD):
            self.close()
            return
        if self._inner is None:
            self._inner = self._door.protocol()
            self._inner.connection_made(cast(asyncio.Transport, self._transport))
        self._inner.data_received(data)
        if too_much:
            self._hold()
        elif self._broken is not None and self._broken():
            self.close()

    def eof_received(self) -> bool | None:
        return None if self._inner is None else self._inner.eof_received()

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._taken += 1
        if self._inner is not None:
            self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._left()
        if self._inner is not None:
            self._inner.connection_lost(exc)


class Strangers:
    """Who has shown no right token, by address, the one that has done nothing for longest first."""

    def __init__(self) -> None:
        # When it came
        self._addresses: dict[str, dict[Visitor, float]] = {}
        self._number = 0

    def __len__(self) -> int:
        return self._number

    def __contains__(self, visitor: Visitor) -> bool:
        return visitor in self._addresses.get(visitor.key, {})

    def add(self, visitor: Visitor, now: float) -> None:
        self._addresses.setdefault(visitor.key, {})[visitor] = now
        self._number += 1

    def remove(self, visitor: Visitor) -> bool:
        """Whether it was there."""
        if visitor not in self:
            return False
        here = self._addresses[visitor.key]
        del here[visitor]
        if not here:
            del self._addresses[visitor.key]
        self._number -= 1
        return True

    def renew(self, visitor: Visitor) -> None:
        """It has done something, and is now the last to give way. It is no newcomer again: strangers who each
        ask for something in their first second would stay, however many they are."""
        here = self._addresses.get(visitor.key, {})
        if (came := here.pop(visitor, None)) is not None:
            here[visitor] = came

    def in_the_way(self, key: str, now: float, coming: int = 1) -> Visitor | None:
        """Who has to go before so many of this address come."""
        if self._number + coming > MAX_NEWCOMERS:
            return self.oldest()
        here, found = self._addresses.get(key, {}), None
        if len(here) + coming > MAX_STRANGERS_OF_AN_ADDRESS:
            found = next(iter(here))
        elif self._number + coming > MAX_STRANGERS:
            found = self.oldest()
        is_new = found is not None and now - self._addresses[found.key][found] < NEW_SECONDS
        return None if is_new else found

    def oldest(self) -> Visitor | None:
        """Of the address that has the most, so that one address cannot drive out those of another."""
        if not self._addresses:
            return None
        most = max(self._addresses, key=lambda key: len(self._addresses[key]))
        return next(iter(self._addresses[most]))


class Transfers:
    """How many bodies of any size are on their way, and whose."""

    def __init__(self) -> None:
        self._of = Counter[str]()

    @contextlib.contextmanager
    def entered(self, principal: str) -> Iterator[None]:
        """Raises LimitReached."""
        if self._of.total() >= MAX_TRANSFERS or self._of[principal] >= MAX_TRANSFERS_OF_ONE:
            raise LimitReached(
                f"There are {self._of.total()} transfers already, {self._of[principal]} with this grant",
                hint="let some of them end first",
            )
        self._of[principal] += 1
        try:
            yield
        finally:
            self._of -= Counter((principal,))


class Door:
    """Accepts on any number of listening sockets. `protocol` makes a protocol of HTTP for each connection."""

    def __init__(
        self, protocol: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None, log: LimitedLog
    ) -> None:
        self.tls = tls
        self.protocol = protocol
        self._log = log
        self._loop = asyncio.get_running_loop()
        self.strangers = Strangers()
        self.held = set[Visitor]()
        self.transfers = Transfers()
        self._listeners: list[socket.socket] = []

    def open(self, listener: socket.socket) -> None:
        """Accept on this listening socket, which is closed with the door."""
        listener.setblocking(False)
        self._listeners.append(listener)
        self._watch(listener)

    def close(self) -> None:
        """Accept nobody any more; who tries waits in the sockets' backlog for the next server."""
        for listener in self._listeners:
            self._loop.remove_reader(listener)
            listener.close()
        self._listeners.clear()

    def renew(self, visitor: Visitor) -> None:
        self.strangers.renew(visitor)

    def forget(self, visitor: Visitor) -> None:
        self.strangers.remove(visitor)

    def count(self, visitor: Visitor) -> None:
        """It is one of the strangers from now on, if it is not already."""
        if visitor in self.strangers:
            return
        now = self._loop.time()
        self._send_away(self.strangers.in_the_way(visitor.key, now))
        self.strangers.add(visitor, now)
        self._loop.call_later(NEW_SECONDS, self._trim, visitor.key)

    def _watch(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            self._loop.add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTS_A_TURN):
            try:
                connection, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError as error:
                self._full(listener, error)
                return
            connection.setblocking(False)
            self.count(Visitor(self, connection, rate_key(address[0])))

    def _trim(self, key: str) -> None:
        """Somebody of this address is no newcomer any more."""
        while visitor := self.strangers.in_the_way(key, self._loop.time(), coming=0):
            self._send_away(visitor)

    def _full(self, listener: socket.socket, error: OSError) -> None:
        """accept(2): no descriptors or no memory. The connection stays in the backlog."""
        self._log.warning("no connection can be accepted now", error=str(error))
        self._send_away(self.strangers.oldest())
        self._loop.remove_reader(listener)
        self._loop.call_later(_FULL_SECONDS, self._watch, listener)

    def _send_away(self, visitor: Visitor | None) -> None:
        if visitor is not None:
            self.strangers.remove(visitor)
            visitor.close()
