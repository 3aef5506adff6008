"""The opening of a WebSocket to a runtime: what is sent, and what its answer means, refusals included.

Pure: bytes in, errors in words out; knows no socket.
"""

from __future__ import annotations

import os
from typing import Any

import msgspec

from mhnos_runtime.client.address import Address
from mhnos_runtime.client.errors import (
    ClientError,
    ConnectFailed,
    Forbidden,
    ProtocolViolation,
    Unauthorized,
)
from mhnos_runtime.client.received import Received
from mhnos_runtime.wire import handshake, http
from mhnos_runtime.wire import messages as m

LONGEST_WAIT_S = 300.0  # a server that asks for more is asked again anyway: it may have been a mistake
MAX_PROBLEM_BYTES = 64 * 1024  # of a refusal's body: far more than the texts of a server
PROBLEM_CHARACTERS = 2000  # of each text that is shown
_SWITCHING = 101


class Opening:
    """One handshake. Send `request`; feed() what comes until it returns True. `rest` is then what came behind
    the server's answer, and greeting() takes its first message."""

    def __init__(self, url: str, address: Address, token: str | None) -> None:
        """Raises ConnectFailed for a token that cannot be sent."""
        self._selected: str | None = None
        self._url = url
        self._key = handshake.key(os.urandom(handshake.KEY_BYTES))
        self._answer = http.Answer(MAX_PROBLEM_BYTES)
        self.request = self._request(address, token)

    def _request(self, address: Address, token: str | None) -> bytes:
        target = address.path + "/"
        try:
            return handshake.request(
                address.authority, target, self._key, m.SUBPROTOCOL, authorization(token)
            )
        except ValueError:
            raise ConnectFailed("the token has characters that no token has", retry=False) from None

    @property
    def rest(self) -> bytes:
        return self._answer.rest

    def feed(self, data: bytes) -> bool:
        """Whether the WebSocket is open. Raises ConnectFailed, Unauthorized, Forbidden."""
        try:
            self._answer.feed(data)
        except http.BadAnswer as error:
            raise self._failed(str(error), retry=False) from None
        head = self._answer.head
        if head is None or not self._answer.done:
            return False
        if head.status != _SWITCHING:
            raise self._failed("")
        try:
            self._selected = handshake.selected(head, self._key, m.SUBPROTOCOL)
        except handshake.NoWebSocket as error:
            raise self._failed(str(error), retry=False) from None
        return True

    def greeting(self, first: Received | ProtocolViolation | None) -> m.Connected:
        """The server's first message, as that of a runtime that speaks protocol 1.1.
        first: None for a connection that was closed. Raises ConnectFailed."""
        if not isinstance(first, m.Connected):
            why = f": {first.message}" if isinstance(first, ProtocolViolation) else ""
            raise ConnectFailed(f"{self._url} did not greet as a runtime does{why}", retry=first is None)
        if self._selected != m.SUBPROTOCOL:
            raise ConnectFailed(
                f"{self._url} speaks only protocol {first.protocol_version}, this client needs 1.1",
                retry=False,
            )
        return first

    def ended(self) -> ClientError:
        """Why it failed, when the connection is closed."""
        return self._failed("it closed the connection")

    def late(self, waited_s: float) -> ClientError:
        """Why it failed, when it takes too long. Of a refusal, only the reason may be missing."""
        if self._answer.head is None or self._answer.head.status == _SWITCHING:
            return ConnectFailed(f"{self._url} did not answer within {waited_s:g} s")
        return self.ended()

    def _failed(self, why: str, *, retry: bool = True) -> ClientError:
        head = self._answer.head
        if head is None or head.status == _SWITCHING:
            return ConnectFailed(f"cannot connect to {self._url}: {why}", retry=retry)
        problem = parse_problem(bytes(self._answer.body) if self._answer.done else b"")
        return refusal(self._url, head.status, head.get("retry-after"), problem)


def authorization(token: str | None) -> dict[str, str]:
    """The header that shows a token."""
    return {"Authorization": f"Bearer {token}"} if token else {}


def parse_problem(body: bytes) -> dict[str, str]:
    """The texts `error`, `code` and `hint` of a refusal, as far as it has them."""
    try:
        found: Any = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return {}
    texts = found if isinstance(found, dict) else {}
    return {
        name: text[:PROBLEM_CHARACTERS]
        for name in ("error", "code", "hint")
        if isinstance(text := texts.get(name), str) and text
    }


def refusal(
    url: str, status: int, retry_after: str | None = None, problem: dict[str, str] | None = None
) -> ClientError:
    """Why a WebSocket was not opened: by HTTP status, the header Retry-After, and what the server says."""
    problem = problem or {}
    said, hint = problem.get("error", ""), problem.get("hint", "")
    why = f": {said}" if said else ""
    if status == 401:
        return Unauthorized(
            f"{url} refused the token{why}",
            hint=hint or "`mhnos-runtime token` on its machine shows the right one",
        )
    if status == 403:
        what = why or ": its Origin, or what the grant of its token allows"
        return Forbidden(f"{url} refuses this client{what}", code=problem.get("code"), hint=hint)
    if status == 421:
        return Forbidden(
            f"{url} does not answer to this name{why}",
            code="forbidden-host",
            hint=hint or "use an address that it listens on, or start it with --allow-host and this name",
        )
    wait_s = _seconds(retry_after) if status in (429, 503) else None
    hints = [hint, f"try again in {wait_s:.0f} s" if wait_s else ""]
    return ConnectFailed(
        f"{url} answered HTTP {status} instead of opening a WebSocket{why}",
        hint="; ".join(filter(None, hints)),
        retry=status in (429, 502, 503),
        retry_after_s=wait_s,
    )


def _seconds(retry_after: str | None) -> float | None:
    """What a server of this protocol says (RFC 9110, 10.2.3, also has a date), LONGEST_WAIT_S at most."""
    if retry_after is None or not (retry_after.isascii() and retry_after.isdigit()):
        return None
    return min(float(retry_after[:9]), LONGEST_WAIT_S)
