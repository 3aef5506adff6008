"""The opening handshake of a WebSocket on the client's side, and the key that both compute (RFC 6455, 4).

Pure: text and heads; knows no socket, and not what refuses it.
"""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Mapping

from mhnos_runtime.wire import http

VERSION = "13"
KEY_BYTES = 16
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3


class NoWebSocket(Exception):
    """The answer changes the protocol to something else than the WebSocket that was asked for."""


def key(random: bytes) -> str:
    """The Sec-WebSocket-Key of KEY_BYTES random bytes."""
    return binascii.b2a_base64(random, newline=False).decode()


def accept(key: str) -> str:
    """The Sec-WebSocket-Accept that answers a key."""
    digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    return binascii.b2a_base64(digest, newline=False).decode()


def request(host: str, target: str, key: str, protocol: str, headers: Mapping[str, str]) -> bytes:
    """What asks for a WebSocket with this subprotocol. Raises ValueError for what cannot stand in a head."""
    return http.request(
        "GET",
        target,
        {
            "Host": host,
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": VERSION,
            "Sec-WebSocket-Key": key,
            "Sec-WebSocket-Protocol": protocol,
            **headers,
        },
    )


def selected(head: http.Head, key: str, protocol: str) -> str | None:
    """The subprotocol that an answer with the status 101 selects, `protocol` or none (RFC 6455, 4.1). Raises
    NoWebSocket."""
    if head.items("upgrade") != ["websocket"] or "upgrade" not in head.items("connection"):
        raise NoWebSocket("its answer upgrades to no WebSocket")
    if head.headers.get("sec-websocket-accept") != [accept(key)]:
        raise NoWebSocket("its Sec-WebSocket-Accept does not answer the key")
    if "sec-websocket-extensions" in head.headers:
        raise NoWebSocket("it uses an extension that nobody offered")
    chosen = head.headers.get("sec-websocket-protocol")
    if chosen is None:
        return None
    if chosen != [protocol]:
        raise NoWebSocket("it selected a subprotocol that nobody offered")
    return protocol
