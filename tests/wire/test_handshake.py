"""The opening handshake on the client's side; the server's is in tests/server/connections."""

from __future__ import annotations

import pytest

from mhnos_runtime.wire import handshake
from mhnos_runtime.wire.handshake import NoWebSocket, selected
from mhnos_runtime.wire.http import Head

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # of RFC 6455, 1.3
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def answer(**changes: list[str] | None) -> Head:
    headers: dict[str, list[str] | None] = {
        "upgrade": ["WebSocket"],
        "connection": ["keep-alive, Upgrade"],
        "sec-websocket-accept": [ACCEPT],
        **{name.replace("_", "-"): value for name, value in changes.items()},
    }
    return Head(101, {name: value for name, value in headers.items() if value is not None})


def test_the_keys_of_the_rfc() -> None:
    assert handshake.key(b"the sample nonce") == KEY
    assert handshake.accept(KEY) == ACCEPT


def test_what_is_asked() -> None:
    asked = handshake.request("h:1", "/a", KEY, "chat", {"Authorization": "Bearer x"}).decode().split("\r\n")
    assert asked[0] == "GET /a HTTP/1.1"
    assert asked[-2:] == ["", ""]
    assert set(asked[1:-2]) == {
        "Host: h:1",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Protocol: chat",
        "Authorization: Bearer x",
    }


def test_a_subprotocol_is_selected_or_none() -> None:
    assert selected(answer(), KEY, "chat") is None
    assert selected(answer(sec_websocket_protocol=["chat"]), KEY, "chat") == "chat"


@pytest.mark.parametrize(
    "changes",
    [
        {"upgrade": None},
        {"upgrade": ["h2c"]},
        {"upgrade": ["websocket", "h2c"]},
        {"connection": None},
        {"connection": ["close"]},
        {"sec_websocket_accept": None},
        {"sec_websocket_accept": [ACCEPT.lower()]},
        {"sec_websocket_accept": [ACCEPT, ACCEPT]},
        {"sec_websocket_extensions": ["permessage-deflate"]},
        {"sec_websocket_protocol": ["Chat"]},
        {"sec_websocket_protocol": ["chat", "chat"]},
    ],
)
def test_what_is_not_the_websocket_that_was_asked_for(changes: dict[str, list[str] | None]) -> None:
    with pytest.raises(NoWebSocket):
        selected(answer(**changes), KEY, "chat")
