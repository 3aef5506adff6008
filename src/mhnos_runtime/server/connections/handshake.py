"""Whether a request is the handshake of a WebSocket, and what answers it (RFC 6455, 4.2). Knows headers, no
HTTP library, and not who may connect."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence

from mhnos_runtime.wire.handshake import KEY_BYTES, VERSION, accept

Headers = Callable[[str], Sequence[str]]


class NoHandshake(Exception):
    """The request is no handshake: HTTP status, what was expected, and the headers that say so."""

    def __init__(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.status, self.text, self.headers = status, text, headers or {}


def check(method: str, version: tuple[int, int], headers: Headers) -> None:
    """Raise NoHandshake unless RFC 6455, 4.2.1 is kept. headers(name): each value of a header, as it came."""
    if method != "GET":
        raise NoHandshake(405, "A WebSocket is opened by GET", {"Allow": "GET"})
    if version < (1, 1):
        raise NoHandshake(400, "A WebSocket needs HTTP/1.1")
    if headers("Transfer-Encoding") or any(length != "0" for length in headers("Content-Length")):
        raise NoHandshake(400, "The handshake of a WebSocket has no body")
    if "upgrade" not in _items(headers("Connection")):
        raise NoHandshake(400, "Expected Connection: Upgrade")
    if list(headers("Sec-WebSocket-Version")) != [VERSION]:
        # RFC 6455, 4.4: say which version there is.
        raise NoHandshake(426, "Expected Sec-WebSocket-Version: 13", {"Sec-WebSocket-Version": VERSION})
    if len(headers("Sec-WebSocket-Key")) != 1 or not _is_key(headers("Sec-WebSocket-Key")[0]):
        raise NoHandshake(400, "Expected one Sec-WebSocket-Key of 16 bytes in base64")


def response(key: str, protocol: str | None) -> bytes:
    """The head that accepts it, with the subprotocol that was selected. No extension is ever accepted."""
    lines = [
        b"HTTP/1.1 101 Switching Protocols",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + accept(key).encode(),
    ]
    if protocol is not None:
        lines.append(b"Sec-WebSocket-Protocol: " + protocol.encode())
    return b"\r\n".join((*lines, b"", b""))


def _items(values: Sequence[str]) -> set[str]:
    return {item.strip().lower() for value in values for item in value.split(",")}


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == KEY_BYTES
    except (binascii.Error, ValueError):
        return False
