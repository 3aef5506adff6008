"""Requests to the runtime's HTTP routes, one a connection. Knows sockets and problem bodies; not routes."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

from mhnos_runtime.client import dial
from mhnos_runtime.client.address import parse
from mhnos_runtime.client.discovery import Target
from mhnos_runtime.client.errors import ConnectFailed, RequestFailed, Unauthorized, request_failed
from mhnos_runtime.client.opening import authorization, parse_problem, refusal
from mhnos_runtime.wire import http
from mhnos_runtime.wire.http import Answer, BadAnswer

TIMEOUT_S = 30.0
MAX_ANSWER_BYTES = 16 * 1024 * 1024  # a list of all the tokens that a server can have is a tenth of it
_READ_BYTES = 64 * 1024
#: Too many requests, and what a server says, or a proxy before it, while it cannot answer (RFC 9110, 15.6).
_PASSES = (429, 502, 503, 504)
#: Where the answer has no body that says more, as that to HEAD.
_CODES = {403: "refused", 404: "not-found", 410: "gone", 412: "changed"}


def ask(target: Target, method: str, path: str, body: object = None, *, timeout_s: float = TIMEOUT_S) -> Any:
    """The JSON of the answer, None where it has none. path: below the runtime's address, encoded.

    Raises ConnectFailed, Unauthorized, RequestFailed with the server's code and hint.
    """
    try:
        answer = _exchange(target, method, path, body, time.monotonic() + timeout_s)
        assert answer.head is not None  # noqa: S101 - an answer that is done has one
        if answer.head.status >= 300:
            raise failed(target.url, answer.head.status, bytes(answer.body))
        return json.loads(answer.body) if _is_json(answer.head) else None
    except TimeoutError:
        raise ConnectFailed(f"cannot ask {target.url}: it did not answer within {timeout_s:g} s") from None
    except OSError as error:
        raise dial.failed(target.url, error, "ask") from error
    except (BadAnswer, ValueError, RecursionError) as error:
        raise ConnectFailed(f"cannot ask {target.url}: {str(error) or type(error).__name__}") from error


def _exchange(target: Target, method: str, path: str, body: object, until: float) -> Answer:
    """Raises OSError, BadAnswer; ValueError for what cannot be sent."""
    address = parse(target.url)
    content = b"" if body is None else json.dumps(body).encode()
    headers = {
        "Host": address.authority,
        "Connection": "close",
        "Accept": "application/json",
        **authorization(target.token),
        **({} if body is None else {"Content-Type": "application/json", "Content-Length": str(len(content))}),
    }
    request = http.request(method, address.path + path, headers, content)
    with dial.dial(address, until) as connection:
        connection.settimeout(dial.left(until))
        connection.sendall(request)
        return _answer(connection, until)


def _answer(connection: socket.socket, until: float) -> Answer:
    answer = Answer(MAX_ANSWER_BYTES)
    while not answer.done:
        connection.settimeout(dial.left(until))
        if data := connection.recv(_READ_BYTES):
            answer.feed(data)
        else:
            answer.end()
    return answer


def _is_json(head: http.Head) -> bool:
    return (head.get("content-type") or "").partition(";")[0].strip().lower() == "application/json"


def failed(url: str, status: int, body: bytes) -> RequestFailed | Unauthorized:
    """What an answer means that is no success; a redirection is none, since the token goes nowhere else."""
    known = parse_problem(body)
    if status == 401:
        unauthorized = refusal(url, status, problem=known)
        assert isinstance(unauthorized, Unauthorized)  # noqa: S101
        return unauthorized
    return request_failed(
        known.get("error") or f"{url} answered HTTP {status}",
        known.get("code") or _CODES.get(status, "internal"),
        known.get("hint", ""),
        retry=status in _PASSES,
    )
