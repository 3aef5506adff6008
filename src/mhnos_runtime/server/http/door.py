"""Accepts connections, and bounds what strangers may cost, who are those whose latest request has shown no
right token: their number, their time, their bytes. Knows sockets and protocols, neither HTTP nor tokens."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import cast

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
#: Of one request, its body included: no route reads one. A head has 8 KiB a line at most.
MAX_REQUEST_BYTES = 64 * 1024
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
        try:
            yield
        finally:
            if self._deadline is not None:
                self._idle, self._bytes = True, 0
                self._expect(IDLE_SECONDS)
                self._door.renew(self)

    def welcome(self) -> None:
        """A right token was shown: it is no stranger any more."""
        self._door.forget(self)

    def estrange(self) -> None:
        """Its latest request showed no right token: whatever it showed before, it is a stranger (again)."""
        if self._deadline is not None:
            self._door.count(self)

    def stay(self) -> None:
        """It is a WebSocket, which has limits of its own."""
        self.welcome()
        self._stop_clock()

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

    def _left(self) -> None:
        self._stop_clock()
        self._door.forget(self)

    # What the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._idle:
            self._idle = False
            self._expect(REQUEST_SECONDS)
        self._bytes += len(data)
        if self._bytes > MAX_REQUEST_BYTES and self._deadline is not None:
            self.close()
            return
        if self._inner is None:
            self._inner = self._door.protocol()
            self._inner.connection_made(cast(asyncio.Transport, self._transport))
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return None if self._inner is None else self._inner.eof_received()

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
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


class Door:
    """Accepts on any number of listening sockets. `protocol` makes a protocol of HTTP for each connection."""

    def __init__(
        self, protocol: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None, log: LimitedLog
    ) -> None:
        self.tls = tls
        self.protocol = protocol
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._strangers = Strangers()
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
        self._strangers.renew(visitor)

    def forget(self, visitor: Visitor) -> None:
        self._strangers.remove(visitor)

    def count(self, visitor: Visitor) -> None:
        """It is one of the strangers from now on, if it is not already."""
        if visitor in self._strangers:
            return
        now = self._loop.time()
        self._send_away(self._strangers.in_the_way(visitor.key, now))
        self._strangers.add(visitor, now)
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
        while visitor := self._strangers.in_the_way(key, self._loop.time(), coming=0):
            self._send_away(visitor)

    def _full(self, listener: socket.socket, error: OSError) -> None:
        """accept(2): no descriptors or no memory. The connection stays in the backlog."""
        self._log.warning("no connection can be accepted now", error=str(error))
        self._send_away(self._strangers.oldest())
        self._loop.remove_reader(listener)
        self._loop.call_later(_FULL_SECONDS, self._watch, listener)

    def _send_away(self, visitor: Visitor | None) -> None:
        if visitor is not None:
            self._strangers.remove(visitor)
            visitor.close()
