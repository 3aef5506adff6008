"""One WebSocket connection, from the upgrade to its close. Knows aiohttp, not requests or processes."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Sequence
from typing import TypeAlias

import aiohttp

from mhnos_runtime.client.errors import ConnectFailed
from mhnos_runtime.client.opening import refusal
from mhnos_runtime.client.received import Received, unpack
from mhnos_runtime.wire import messages as m
from mhnos_runtime.wire.parse import parse_message

CONNECT_TIMEOUT_S = 10.0  # well above a TLS handshake by satellite; a server that hangs is soon noticed
CLOSE_TIMEOUT_S = 2.0  # a goodbye is a courtesy: a peer that does not answer it is left
HEARTBEAT_S = 20.0  # below the 30 s to 60 s after which NATs and proxies forget an idle connection
_NORMAL_CLOSE = frozenset({aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED})

SslOption: TypeAlias = ssl.SSLContext | bool


class LinkClosed(Exception):
    """The connection is over; `code` is the WebSocket close code (RFC 6455, 7.4), 1006 if there was none."""

    def __init__(self, code: int | None) -> None:
        super().__init__(f"close code {code}")
        self.code = code or 1006


class Link:
    """An open connection that speaks protocol 1.1; `hello` is the server's first message."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, hello: m.Connected) -> None:
        self._socket = socket
        self.hello = hello

    @classmethod
    async def open(
        cls,
        session: aiohttp.ClientSession,
        url: str,
        token: str | None,
        *,
        ssl_option: SslOption = True,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> Link:
        """Connect and take the server's greeting.

        Raises ConnectFailed (worth another attempt where its `retry` says so), Unauthorized, Forbidden.
        """
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                socket = await _upgrade(session, url, token, ssl_option, heartbeat_s)
                return cls(socket, await _greeting(socket, url))
        except TimeoutError:
            raise ConnectFailed(f"{url} did not answer within {CONNECT_TIMEOUT_S:.0f} s") from None
        except aiohttp.WSServerHandshakeError as error:
            retry_after = error.headers.get("Retry-After") if error.headers is not None else None
            raise refusal(url, error.status, retry_after) from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise ConnectFailed(
                f"cannot connect to {url}: its certificate is not trusted, or is of another name",
                hint="with a certificate of your own: SSL_CERT_FILE=cert.pem, and an address that it names",
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise ConnectFailed(
                f"cannot connect to {url}: {_reason(error)}",
                hint="is it running? `mhnos-runtime serve` starts one here",
            ) from error

    async def receive(self) -> Received:
        """The next message or frame. Raises LinkClosed."""
        frame = await self._socket.receive()
        if frame.type is aiohttp.WSMsgType.BINARY:
            return unpack(frame.data)
        if frame.type is aiohttp.WSMsgType.TEXT:
            return parse_message(frame.data)
        raise LinkClosed(self._socket.close_code if frame.type in _NORMAL_CLOSE else None)

    async def send(self, message: bytes) -> None:
        """Send one text frame. A connection that is ending takes nothing; `receive` is where that shows."""
        await self._send(message, aiohttp.WSMsgType.TEXT)

    async def send_all(self, messages: Sequence[bytes]) -> None:
        """Send text frames, in order; as `send`."""
        for message in messages:
            await self.send(message)

    async def send_frame(self, frame: bytes) -> None:
        """Send one binary frame; as `send`."""
        await self._send(frame, aiohttp.WSMsgType.BINARY)

    async def _send(self, data: bytes, kind: aiohttp.WSMsgType) -> None:
        try:
            await self._socket.send_frame(data, kind)
        except (aiohttp.ClientError, ConnectionError):
            pass  # the reader learns of it, and it alone decides what follows

    async def close(self) -> None:
        """Say goodbye, so that the server keeps nothing for this client."""
        await self._socket.close()


async def _upgrade(
    session: aiohttp.ClientSession, url: str, token: str | None, ssl_option: SslOption, heartbeat_s: float
) -> aiohttp.ClientWebSocketResponse:
    return await session.ws_connect(
        url,
        protocols=(m.SUBPROTOCOL,),
        headers={"Authorization": f"Bearer {token}"} if token else {},
        max_msg_size=m.MAX_MESSAGE_BYTES,
        heartbeat=heartbeat_s,
        timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT_S),
        ssl=ssl_option,
    )


async def _greeting(socket: aiohttp.ClientWebSocketResponse, url: str) -> m.Connected:
    frame = await socket.receive()
    if frame.type is aiohttp.WSMsgType.TEXT and isinstance(hello := parse_message(frame.data), m.Connected):
        if socket.protocol == m.SUBPROTOCOL:
            return hello
        problem, retry = f"{url} speaks only protocol {hello.protocol_version}, this client needs 1.1", False
    else:
        problem, retry = f"{url} did not greet as a runtime does", frame.type in _NORMAL_CLOSE
    await socket.close()
    raise ConnectFailed(problem, retry=retry)


def _reason(error: Exception) -> str:
    """The system's own words where there are any: those of asyncio and aiohttp repeat the address."""
    cause = getattr(error, "os_error", error)
    number = getattr(cause, "errno", None)
    if isinstance(number, int) and number > 0:
        return os.strerror(number)
    return getattr(cause, "strerror", None) or str(error) or type(error).__name__
