"""Which requests open a WebSocket (RFC 6455, 4.2), tried with raw bytes. Each has a right token:
test_gate.py has what is refused without one."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from typing import Any

import pytest

from mhnos_runtime.server.connections import handshake
from mhnos_runtime.testing import TestServer
from tests.server.raw import PATIENCE, connect, raw, upgrade

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: RFC 6455, 1.3
EXAMPLE_KEY, EXAMPLE_ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


async def head(server: TestServer, request: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers of the answer; then the connection is dropped."""
    reader, writer = await connect(server)
    try:
        writer.write(request)
        lines = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)).decode().split("\r\n")
    finally:
        writer.transport.abort()
    fields = (line.partition(":") for line in lines[1:] if line)
    return int(lines[0].split()[1]), {name.lower(): value.strip() for name, _, value in fields}


async def test_the_example_of_the_rfc(server: TestServer) -> None:
    status, headers = await head(server, upgrade(server, Sec_WebSocket_Key=EXAMPLE_KEY))
    assert (status, headers["sec-websocket-accept"]) == (101, EXAMPLE_ACCEPT)
    assert (headers["upgrade"], headers["connection"]) == ("websocket", "Upgrade")
    assert "sec-websocket-protocol" not in headers
    assert "sec-websocket-extensions" not in headers


async def test_the_key_is_hashed_as_it_is() -> None:
    key = base64.b64encode(bytes(range(16))).decode()
    digest = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    assert b"Sec-WebSocket-Accept: " + base64.b64encode(digest) in handshake.response(key, None)


ACCEPTED: list[dict[str, str | None]] = [
    {"Upgrade": "WebSocket"},
    {"Connection": "keep-alive, Upgrade"},
    {"Connection": "UPGRADE"},
    {"Content_Length": "0"},
    {"Sec_WebSocket_Extensions": "permessage-deflate; client_max_window_bits"},
    {"Sec_WebSocket_Protocol": "chat, mhnos.v1.1"},
]


@pytest.mark.parametrize("changes", ACCEPTED, ids=str)
async def test_what_is_accepted(server: TestServer, changes: dict[str, str | None]) -> None:
    status, headers = await head(server, upgrade(server, **changes))
    assert status == 101
    assert "sec-websocket-extensions" not in headers
    assert headers.get("sec-websocket-protocol") == (
        "mhnos.v1.1" if "Sec_WebSocket_Protocol" in changes else None
    )


REFUSED: list[tuple[dict[str, str | None], int]] = [
    ({"Connection": None}, 400),
    ({"Connection": "keep-alive"}, 400),
    ({"Connection": "close"}, 400),
    ({"Sec_WebSocket_Version": None}, 426),
    ({"Sec_WebSocket_Version": "7"}, 426),
    ({"Sec_WebSocket_Version": "8"}, 426),
    ({"Sec_WebSocket_Version": "14"}, 426),
    ({"Sec_WebSocket_Version": "13, 8"}, 426),
    ({"Sec_WebSocket_Key": None}, 400),
    ({"Sec_WebSocket_Key": ""}, 400),
    ({"Sec_WebSocket_Key": "x"}, 400),
    ({"Sec_WebSocket_Key": "not base64 at all!!!!!!="}, 400),
    ({"Sec_WebSocket_Key": base64.b64encode(bytes(15)).decode()}, 400),
    ({"Sec_WebSocket_Key": base64.b64encode(bytes(17)).decode()}, 400),
    ({"Sec_WebSocket_Key": f"{EXAMPLE_KEY}\r\nSec-WebSocket-Key: {EXAMPLE_KEY}"}, 400),
    ({"Content_Length": "5"}, 400),
    ({"Transfer_Encoding": "chunked"}, 400),
]


@pytest.mark.parametrize(("changes", "expected"), REFUSED, ids=str)
async def test_what_is_refused(server: TestServer, changes: dict[str, str | None], expected: int) -> None:
    status, headers = await head(server, upgrade(server, **changes))
    assert status == expected
    if expected == 426:
        assert headers["sec-websocket-version"] == "13"


@pytest.mark.parametrize("method", ["POST", "PUT", "HEAD", "OPTIONS", "DELETE"])
async def test_no_other_method_than_get(server: TestServer, method: str) -> None:
    """An upgrade by POST was accepted."""
    request = upgrade(server).replace(b"GET ", f"{method} ".encode(), 1)
    status, headers = await head(server, request)
    assert (status, headers["allow"]) == (405, "GET")


async def test_no_other_version_than_1_1(server: TestServer) -> None:
    assert (await head(server, upgrade(server).replace(b"HTTP/1.1", b"HTTP/1.0", 1)))[0] == 400


async def test_a_refused_handshake_leaves_a_connection_for_the_next_one(server: TestServer) -> None:
    reader, writer = await connect(server)
    writer.write(upgrade(server, Sec_WebSocket_Key="x") + upgrade(server))
    assert (await reader.readline()).split()[1] == b"400"
    await asyncio.wait_for(reader.readuntil(b"HTTP/1.1 101 "), PATIENCE)
    writer.transport.abort()


async def test_the_connection_is_good_however_the_handshake_is_cut(server: TestServer) -> None:
    reader, writer = await connect(server)
    for byte in upgrade(server):
        writer.write(bytes([byte]))
        await writer.drain()
    assert (await asyncio.wait_for(reader.readline(), PATIENCE)).split()[1] == b"101"
    writer.transport.abort()
    async with raw(server) as client:
        await client.works()


def values(changes: dict[str, list[str]]) -> handshake.Headers:
    headers = {
        "Connection": ["Upgrade"],
        "Sec-WebSocket-Version": ["13"],
        "Sec-WebSocket-Key": [EXAMPLE_KEY],
        **changes,
    }
    return lambda name: headers.get(name, [])


RIGHT: dict[str, Any] = {"method": "GET", "version": (1, 1), "changes": {}}


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"method": "POST"}, 405),
        ({"version": (1, 0)}, 400),
        ({"changes": {"Content-Length": ["0", "1"]}}, 400),
        ({"changes": {"Transfer-Encoding": ["chunked"]}}, 400),
        ({"changes": {"Connection": ["keep-alive", "close, upgraded"]}}, 400),
        ({"changes": {"Sec-WebSocket-Version": ["13", "13"]}}, 426),
        ({"changes": {"Sec-WebSocket-Key": [EXAMPLE_KEY, EXAMPLE_KEY]}}, 400),
        ({"changes": {"Sec-WebSocket-Key": ["ä" * 24]}}, 400),
        ({"changes": {"Sec-WebSocket-Key": [EXAMPLE_KEY[:-1]]}}, 400),
    ],
    ids=str,
)
async def test_the_check_alone(wrong: dict[str, Any], status: int) -> None:
    """Without a server, header by header."""
    right = {**RIGHT, **wrong}
    with pytest.raises(handshake.NoHandshake) as caught:
        handshake.check(right["method"], right["version"], values(right["changes"]))
    assert caught.value.status == status
    handshake.check("GET", (1, 1), values({"Connection": ["keep-alive", "close, UPGRADE"]}))
    handshake.check("GET", (1, 1), values({"Content-Length": ["0"]}))
