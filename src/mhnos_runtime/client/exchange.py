"""One connection for requests of HTTP/1.1 one after the other, with bodies of any size both ways. Knows
sockets; not routes, and not what an answer means."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterable, Iterator

from mhnos_runtime.client import dial
from mhnos_runtime.client.address import Address
from mhnos_runtime.client.dial import SslOption
from mhnos_runtime.wire.http import Answer, BadAnswer, Head

CONNECT_TIMEOUT_S = 10.0  # well above a TLS handshake by satellite; a server that hangs is soon noticed
#: A server that has not said by then whether it wants the body gets it: some never do (RFC 9110, 10.1.1).
CONTINUE_S = 1.0
#: How often a sender that is not read from looks whether the answer has come already.
LOOK_S = 0.5
READ_BYTES = 256 * 1024
#: A piece of a body is sent in parts of this size: large enough to be cheap, small enough to look between.
SEND_BYTES = 256 * 1024
_NO_BODY = "the answer has no length: nobody could tell whether it is whole"


class Stale(Exception):
    """A connection that was used before had ended when the next request was sent; that one was not answered,
    and nothing of its body was sent."""


class Exchange:
    """An open connection. begin() a request, send() its body, then take the head() and the body() of the
    answer. All raise OSError; TimeoutError after so many seconds in which nothing moved; BadAnswer."""

    def __init__(self, address: Address, timeout_s: float, option: SslOption = True) -> None:
        """Connects. Raises OSError."""
        until = time.monotonic() + min(timeout_s, CONNECT_TIMEOUT_S)
        self._socket = dial.dial(address, until, option)
        self._timeout_s = timeout_s
        self._answer = Answer(None)
        self._used = self._reused = False
        self._body_begun = False
        self._heard = False  # something of the answer has come
        #: The request was not sent to its end: the answer came before, or nobody knows.
        self.cut = False

    def close(self) -> None:
        self._socket.close()

    def interrupt(self) -> None:
        """From another thread: whoever waits for this connection finds it ended."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    @property
    def reusable(self) -> bool:
        """Whether another request can be sent: the last one and its answer are over, and whole."""
        answer = self._answer
        if self.cut or not answer.done or answer.rest or answer.head is None:
            return False
        return "close" not in answer.head.items("connection")

    def begin(self, head: bytes, *, to_head: bool = False, expects: bool = False) -> None:
        """Send a request's head; to_head: it is one for HEAD. expects: it asks to be told to go on, which
        this waits for. Raises Stale."""
        self._reused, self._used, self._heard = self._used, True, False
        self._body_begun = self.cut = False
        self._answer = Answer(None, to_head=to_head)
        with self._unanswered():
            self._send_all(memoryview(head))
            if expects:
                self._await_continue()

    def send(self, pieces: Iterable[bytes], *, chunked: bool) -> None:
        """Send the body, to its end or until the server has answered without it."""
        self.cut = True
        self._body_begun = True
        for piece in pieces:
            if piece and not self._send_piece(piece, chunked):
                return
        self.cut = chunked and not self._send_all(memoryview(b"0\r\n\r\n"))

    def head(self) -> Head:
        """The head of the answer, within the time. Raises Stale where there was no body to send."""
        until = time.monotonic() + self._timeout_s
        with self._unanswered():
            while self._answer.head is None:
                self._take(until)
        return self._answer.head

    @property
    def length(self) -> int | None:
        """Of the answer's body; None: in chunks."""
        return self._answer.length

    def body(self) -> Iterator[bytes]:
        """The answer's body, as it comes. Raises BadAnswer where its end could not be told."""
        if not self._answer.framed:
            raise BadAnswer(_NO_BODY)
        while True:
            if piece := self._answer.take():
                yield piece
            elif self._answer.done:
                return
            else:
                self._take(time.monotonic() + self._timeout_s)

    # Sending

    def _send_piece(self, piece: bytes, chunked: bool) -> bool:
        whole = memoryview(piece)
        for start in range(0, len(whole), SEND_BYTES):
            part = whole[start : start + SEND_BYTES]
            if chunked:
                part = memoryview(b"%x\r\n%b\r\n" % (len(part), bytes(part)))
            if not self._send_all(part):
                return False
        return True

    def _send_all(self, data: memoryview) -> bool:
        """False: the answer has come before all was sent, or the connection broke with it in it."""
        until = time.monotonic() + self._timeout_s
        while data:
            if self._answered():
                return False
            try:
                self._socket.settimeout(min(LOOK_S, dial.left(until)))
                data = data[self._socket.send(data) :]
                until = time.monotonic() + self._timeout_s
            except TimeoutError:
                dial.left(until)
            except (BrokenPipeError, ConnectionResetError):
                # The server has ended its side. Why it did may have arrived before.
                if self._answered():
                    return False
                raise
        return True

    def _answered(self) -> bool:
        """Take in what has come, without waiting for it; whether the head of the answer is there."""
        while self._answer.head is None:
            self._socket.settimeout(0)
            try:
                data = self._socket.recv(READ_BYTES)
            except OSError as error:
                if dial.is_nothing_yet(error):
                    return False
                raise
            self._feed(data)
        return True

    def _await_continue(self) -> None:
        until = time.monotonic() + min(CONTINUE_S, self._timeout_s)
        with contextlib.suppress(TimeoutError):
            while not self._answer.continued and self._answer.head is None:
                self._take(until)

    @contextlib.contextmanager
    def _unanswered(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise
        except OSError as error:
            if self._reused and not self._body_begun and not self._heard:
                raise Stale from error
            raise

    # Receiving

    def _take(self, until: float) -> None:
        self._socket.settimeout(dial.left(until))
        self._feed(self._socket.recv(READ_BYTES))

    def _feed(self, data: bytes) -> None:
        if data:
            self._heard = True
            self._answer.feed(data)
        else:
            raise ConnectionResetError("the connection ended before the answer did")
