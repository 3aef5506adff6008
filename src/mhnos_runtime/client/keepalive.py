"""Requests over one connection that is kept between them, and dialled again when it was lost. Knows errors in
words; not routes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Mapping

from mhnos_runtime.client import dial
from mhnos_runtime.client.address import parse
from mhnos_runtime.client.dial import SslOption
from mhnos_runtime.client.discovery import Target
from mhnos_runtime.client.errors import ClientError, ConnectFailed, ConnectionLost, ProtocolViolation
from mhnos_runtime.client.exchange import Exchange, Stale
from mhnos_runtime.client.http import failed
from mhnos_runtime.client.opening import MAX_PROBLEM_BYTES, authorization
from mhnos_runtime.wire import http
from mhnos_runtime.wire.http import BadAnswer, Head


class SourceFailed(Exception):
    """What gives the body of a request has failed; its cause is the error."""


class KeepAlive:
    """One thread uses it, another one may interrupt it. To be closed."""

    def __init__(self, target: Target, timeout_s: float, option: SslOption = True) -> None:
        """Raises ConnectFailed for what is no address."""
        self._url = target.url
        self._token = target.token
        self._address = parse(target.url)
        self._timeout_s = timeout_s
        self._option = option
        self._idle: Exchange | None = None
        self._busy: set[Exchange] = set()
        self._over = threading.Event()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections, those that bring an answer too."""
        self._over.set()
        with self._lock:
            for each in [*self._busy, *([self._idle] if self._idle else [])]:
                each.close()
            self._busy.clear()
            self._idle = None

    def interrupt(self) -> None:
        """From another thread: whatever is under way ends with ConnectionLost."""
        self._over.set()
        with self._lock:
            for each in self._busy:
                each.interrupt()

    @property
    def over(self) -> bool:
        """Whether it was closed or interrupted."""
        return self._over.is_set()

    def pause(self, seconds: float) -> None:
        """Wait before another attempt. Raises ConnectionLost when interrupted."""
        if self._over.wait(seconds):
            raise self._ended()

    def ask(
        self,
        method: str,
        route: str,
        headers: Mapping[str, str],
        body: Iterable[bytes] | None = None,
        size: int | None = None,
    ) -> tuple[Exchange, Head]:
        """The answer's head, when it is a success; its body is taken from the exchange, which is to be given
        back then. size: of the body, where it is known.

        Raises RequestFailed, Unauthorized, ConnectFailed, ConnectionLost, ProtocolViolation, and whatever the
        body does.
        """
        head = self._head(method, route, headers, body is not None, size)
        if body is not None and size == 0:
            body = list(
                body
            )  # the head is all that the server waits for: what is wrong has to show before it
        while True:
            exchange = self._take()
            try:
                with self.told():
                    answered = _exchange(exchange, method, head, body, size)
                if answered.status < 300:
                    return exchange, answered
                problem = _problem(exchange)
                break
            except Stale:
                self.drop(exchange)
            except SourceFailed as source:
                self.drop(exchange)
                raise (source.__cause__ or source) from None
            except BaseException:
                self.drop(exchange)
                raise
        self.give_back(exchange)
        raise failed(self._url, answered.status, problem)

    def give_back(self, exchange: Exchange) -> None:
        """Its answer has been taken to the end."""
        with self._lock:
            keeps = exchange.reusable and self._idle is None and not self._over.is_set()
            self._busy.discard(exchange)
            if keeps:
                self._idle = exchange
        if not keeps:
            exchange.close()

    def drop(self, exchange: Exchange) -> None:
        """Its answer is of no use any more."""
        with self._lock:
            self._busy.discard(exchange)
        exchange.close()

    def whole(self, exchange: Exchange, max_bytes: int) -> bytes:
        """The body of an answer, which is given back. Raises ProtocolViolation when it is larger."""
        try:
            with self.told():
                content = _bounded(exchange, max_bytes)
        except BaseException:
            self.drop(exchange)
            raise
        self.give_back(exchange)
        return content

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """What goes wrong with a connection, as errors of the client."""
        try:
            yield
        except TimeoutError:
            raise self._lost(f"{self._url} has been silent for {self._timeout_s:g} s") from None
        except OSError as error:
            raise self._lost(f"the connection to {self._url} was lost: {dial.reason(error)}") from error
        except BadAnswer as error:
            raise ProtocolViolation(f"{self._url}: {error}") from error

    def _lost(self, message: str) -> ClientError:
        return self._ended() if self._over.is_set() else ConnectionLost(message)

    def _ended(self) -> ConnectionLost:
        return ConnectionLost("this was ended from here", retry=False)

    def _take(self) -> Exchange:
        with self._lock:
            exchange, self._idle = self._idle, None
        if exchange is None:
            exchange = self._dial()
        with self._lock:
            self._busy.add(exchange)
        if self._over.is_set():
            self.drop(exchange)
            raise self._ended()
        return exchange

    def _dial(self) -> Exchange:
        if self._over.is_set():
            raise self._ended()
        try:
            return Exchange(self._address, self._timeout_s, self._option)
        except TimeoutError:
            raise ConnectFailed(f"cannot connect to {self._url}: it did not answer in time") from None
        except OSError as error:
            raise dial.failed(self._url, error) from error

    def _head(
        self, method: str, route: str, headers: Mapping[str, str], has_body: bool, size: int | None
    ) -> bytes:
        length = {"Transfer-Encoding": "chunked"} if size is None else {"Content-Length": str(size)}
        expects = {"Expect": "100-continue"} if size != 0 else {}
        fields = {
            "Host": self._address.authority,
            "Accept-Encoding": "identity",
            **authorization(self._token),
            **({**length, **expects} if has_body else {}),
            **headers,
        }
        try:
            return http.request(method, self._address.path + route, fields)
        except ValueError as error:
            raise ConnectFailed(f"cannot ask {self._url}: {error}", retry=False) from None


def _exchange(
    exchange: Exchange, method: str, head: bytes, body: Iterable[bytes] | None, size: int | None
) -> Head:
    exchange.begin(head, to_head=method == "HEAD", expects=body is not None and size != 0)
    if body is not None:
        exchange.send(_guarded(body), chunked=size is None)
    answered = exchange.head()
    if exchange.cut and answered.status < 300:
        raise BadAnswer("it took a request of which it has not got all")
    return answered


def _problem(exchange: Exchange) -> bytes:
    """What a refusal says, as far as it can be read: its status is there already."""
    with contextlib.suppress(OSError, BadAnswer):
        return _bounded(exchange, MAX_PROBLEM_BYTES)
    return b""


def _bounded(exchange: Exchange, max_bytes: int) -> bytes:
    content = bytearray()
    for piece in exchange.body():
        content += piece
        if len(content) > max_bytes:
            raise BadAnswer(f"an answer of more than {max_bytes} bytes")
    return bytes(content)


def _guarded(body: Iterable[bytes]) -> Iterator[bytes]:
    """An error of the source is none of the connection, though both may be an OSError."""
    try:
        yield from body
    except Exception as error:
        raise SourceFailed from error
