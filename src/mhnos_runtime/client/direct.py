"""A blocking connection to a runtime, for programs that ask one thing: no event loop, no reconnecting.

Knows sockets and the protocol's messages; one thread uses it.
"""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections import deque
from types import TracebackType
from typing import TypeAlias, TypeVar

import msgspec

from mhnos_runtime.client import dial
from mhnos_runtime.client.address import parse
from mhnos_runtime.client.discovery import Target
from mhnos_runtime.client.errors import (
    ClientError,
    ConnectionLost,
    ProtocolViolation,
    RequestTimedOut,
    Unauthorized,
)
from mhnos_runtime.client.opening import Opening
from mhnos_runtime.client.received import Goodbye, Inbound, Ping, Received, failure, name, number
from mhnos_runtime.wire import frames
from mhnos_runtime.wire import messages as m
from mhnos_runtime.wire import websocket as rfc
from mhnos_runtime.wire.answers import Unknown
from mhnos_runtime.wire.encode import encode

CONNECT_TIMEOUT_S = 10.0  # well above a TLS handshake by satellite; a server that hangs is soon noticed
REQUEST_TIMEOUT_S = 30.0  # what clients of protocol 1.0 give a request
HEARTBEAT_S = 20.0  # below the 30 s to 60 s after which NATs and proxies forget an idle connection
GOODBYE_S = 0.001  # for the close frame that ends a connection: it is lost if there is no room for it at once
CLOSE_TIMEOUT_S = 2.0  # a goodbye is a courtesy: a peer that does not answer it is left
GRANT_ENDED = 1008  # close code: this token is good no more
READ_BYTES = 64 * 1024
#: Of events that come while an answer is awaited, and wait for receive(): each counts as HELD_BYTES at least.
MAX_HELD_BYTES = 32 * 1024 * 1024
HELD_BYTES = 1024

M = TypeVar("M", bound=m.Message)
Event: TypeAlias = m.ServerMessage | frames.DataFrame


class Direct:
    """An open connection that speaks protocol 1.1; `hello` is the server's first message. To be closed."""

    hello: m.Connected

    def __init__(self, url: str, connection: socket.socket, opening: Opening) -> None:
        """Made by `open`."""
        self._url = url
        self._socket = connection
        self._inbound = Inbound()
        self._inbound.feed(opening.rest)
        self._ids = itertools.count(1)
        self._held: deque[tuple[Event, int]] = deque()
        self._held_bytes = 0
        self._over: ClientError | None = None

    @classmethod
    def open(cls, target: Target, timeout_s: float = CONNECT_TIMEOUT_S) -> Direct:
        """Connect, and take the server's greeting. Raises ConnectFailed, Unauthorized, Forbidden."""
        until = time.monotonic() + timeout_s
        address = parse(target.url)
        opening = Opening(target.url, address, target.token)
        connection: socket.socket | None = None
        try:
            connection = dial.dial(address, until)
            _shake_hands(connection, opening, until)
            made = cls(target.url, connection, opening)
            made.hello = opening.greeting(made._first(until))
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, TimeoutError):
                raise opening.late(timeout_s) from None
            if isinstance(error, OSError):
                raise dial.failed(target.url, error) from error
            raise
        return made

    def __enter__(self) -> Direct:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, message: m.Message, answer: type[M], timeout_s: float = REQUEST_TIMEOUT_S) -> M:
        """Send a request and wait for its answer; events that come before it are kept for receive().

        Raises RequestFailed, RequestTimedOut, ConnectionLost, ProtocolViolation, Unauthorized (the grant has
        ended meanwhile).
        """
        wanted = next(self._ids)
        message.id = msgspec.Raw(b"%d" % wanted)
        until = time.monotonic() + timeout_s
        self.send(message)
        while (got := self._next(until)) is not None:
            if isinstance(got, frames.DataFrame) or number(got.id) != wanted:
                self._hold(got)
                if time.monotonic() >= until:
                    break
            elif isinstance(got, answer):
                return got
            elif isinstance(got, m.ErrorMessage):
                raise failure(got)
            elif isinstance(got, Unknown):
                raise ProtocolViolation(f"the answer was not understood: {got.reason}")
            else:
                raise ProtocolViolation(f"{name(message)} was answered by {name(got)}")
        raise RequestTimedOut(f"no answer to {name(message)} within {timeout_s:g} s")

    def send(self, message: m.Message) -> None:
        """Send what needs no answer. Raises ConnectionLost."""
        self._write(rfc.TEXT, encode(message))

    def send_frame(self, frame: bytes) -> None:
        """Send one binary frame. Raises ConnectionLost."""
        self._write(rfc.BINARY, frame)

    def receive(self, timeout_s: float | None = None) -> Event:
        """The next event, or frame of output; None: however long it takes. What a newer server says beyond
        the protocol is passed over.

        Raises RequestTimedOut, ConnectionLost, ProtocolViolation, Unauthorized.
        """
        if self._held:
            event, size = self._held.popleft()
            self._held_bytes -= size
            return event
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while (got := self._next(until)) is not None:
            if not isinstance(got, Unknown):
                return got
            if until is not None and time.monotonic() >= until:
                break
        raise RequestTimedOut(f"nothing came within {timeout_s:g} s")

    def close(self) -> None:
        """Say goodbye, so that the server has read all that was sent; then leave."""
        try:
            if self._over is None:
                until = time.monotonic() + CLOSE_TIMEOUT_S
                self._write(rfc.CLOSE, rfc.pack_close(rfc.NORMAL), CLOSE_TIMEOUT_S)
                while self._next(until) is not None and time.monotonic() < until:
                    pass
        except ClientError:
            pass
        finally:
            self._over = self._over or ConnectionLost("the client was closed", retry=False)
            self._socket.close()

    # Messages

    def _first(self, until: float) -> Received | ProtocolViolation | None:
        """The first message, or what is wrong with it; None: the connection was closed. Raises
        TimeoutError."""
        try:
            got = self._next(until)
        except ProtocolViolation as error:
            return error
        except (ConnectionLost, Unauthorized):
            return None
        if got is None:
            raise TimeoutError
        return got

    def _next(self, until: float | None) -> Received | None:
        """What the server says next; None: nothing until then."""
        waited = False
        while True:
            if self._over is not None:
                raise self._over
            try:
                got = self._inbound.next()
            except ProtocolViolation as error:
                raise self._leave(rfc.PROTOCOL_ERROR, error) from None
            if got is None:
                # Bytes that never become a message end the wait as well.
                if (waited and until is not None and time.monotonic() >= until) or not self._fill(until):
                    return None
                waited = True
            elif isinstance(got, Ping):
                self._write(rfc.PONG, got.payload, self._patience(until))
            elif isinstance(got, Goodbye):
                raise self._leave(got.code, self._why_closed(got.code))
            else:
                return got

    def _hold(self, got: Received) -> None:
        if isinstance(got, Unknown):
            return
        size = max(self._inbound.size, HELD_BYTES)
        if self._held_bytes + size > MAX_HELD_BYTES:
            error = ProtocolViolation(f"{self._url} sends more than {MAX_HELD_BYTES} bytes and no answer")
            raise self._leave(rfc.TOO_BIG, error)
        self._held.append((got, size))
        self._held_bytes += size

    def _why_closed(self, code: int | None) -> ClientError:
        if code == GRANT_ENDED:
            return Unauthorized(f"{self._url} takes this token no more: its grant was revoked or has expired")
        return ConnectionLost(f"the connection to {self._url} was closed ({code or 'without a code'})")

    def _leave(self, code: int | None, error: ClientError) -> ClientError:
        """Answer a goodbye, or say why this side ends the connection, as far as the server listens."""
        try:
            self._write(rfc.CLOSE, b"" if code is None else rfc.pack_close(code), GOODBYE_S)
        except ConnectionLost:
            pass
        return self._lost(error)

    def _lost(self, error: ClientError) -> ClientError:
        """The connection is over, and why."""
        self._over = error
        self._socket.close()
        return error

    # Bytes

    def _fill(self, until: float | None) -> bool:
        """Wait for bytes and take them; False: nothing until then. Raises ConnectionLost at the end of the
        connection, and for a server that is silent for two heartbeats."""
        asked = False
        while True:
            try:
                self._socket.settimeout(self._patience(until))
                data = self._socket.recv(READ_BYTES)
            except TimeoutError:
                if until is not None and time.monotonic() >= until:
                    return False
                if asked:
                    raise self._lost(ConnectionLost(f"{self._url} has fallen silent")) from None
                self._write(rfc.PING, b"")
                asked = True
            except OSError as error:
                raise self._lost(self._broken(error)) from error
            else:
                if not data:
                    raise self._lost(self._broken(None))
                self._inbound.feed(data)
                return True

    def _patience(self, until: float | None) -> float:
        """How long to wait for bytes: one heartbeat at most. For a socket, 0 means not to wait at all."""
        beat = HEARTBEAT_S if until is None else min(HEARTBEAT_S, until - time.monotonic())
        return max(beat, 0.001)

    def _write(self, opcode: int, payload: rfc.Payload, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        if self._over is not None:
            raise self._over
        try:
            self._socket.settimeout(timeout_s)
            self._socket.sendall(rfc.pack_masked(opcode, payload, os.urandom(rfc.MASK_BYTES)))
        except OSError as error:
            raise self._lost(self._broken(error)) from error

    def _broken(self, error: OSError | None) -> ConnectionLost:
        why = f": {dial.reason(error)}" if error is not None else ""
        return ConnectionLost(f"the connection to {self._url} was lost{why}")


def _shake_hands(connection: socket.socket, opening: Opening, until: float) -> None:
    """Raises OSError, TimeoutError, and what Opening says."""
    connection.settimeout(dial.left(until))
    connection.sendall(opening.request)
    opened = False
    while not opened:
        connection.settimeout(dial.left(until))
        if not (data := connection.recv(READ_BYTES)):
            raise opening.ended()
        opened = opening.feed(data)
