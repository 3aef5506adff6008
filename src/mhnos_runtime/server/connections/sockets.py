"""The routes of the WebSocket: its upgrade, what the server says first (also to who wants to know why none
opens), and all that are open. Knows HTTP and connections, not requests."""

from __future__ import annotations

import asyncio
import itertools
import socket
from typing import Any, cast

import msgspec
from aiohttp import WSCloseCode, hdrs, web

from mhnos_runtime import __version__
from mhnos_runtime.config import Settings
from mhnos_runtime.observe import logs
from mhnos_runtime.server.auth.grants import Access, Grant, Scope
from mhnos_runtime.server.auth.live import Live
from mhnos_runtime.server.connections import handshake
from mhnos_runtime.server.connections.connection import Connection, Services
from mhnos_runtime.server.connections.handshake import NoHandshake
from mhnos_runtime.server.connections.websocket import WebSocket
from mhnos_runtime.server.http.call import GONE, Call, offered_protocols
from mhnos_runtime.server.http.problems import HttpError
from mhnos_runtime.server.http.routes import About, Reply, Row
from mhnos_runtime.server.processes import room
from mhnos_runtime.wire import frames
from mhnos_runtime.wire import messages as m

#: A client that has been silent for this long is asked whether it is there, and given up after twice as long.
HEARTBEAT_SECONDS = 15.0
#: How long clients may take to say goodbye to a server that goes: the others wait for the next one meanwhile.
GOODBYE_SECONDS = 0.2
#: When a client that there was no room for may come again.
RETRY_SECONDS = 5
#: Bytes that the kernel holds for a client beyond what is on its way: little, so that Ctrl-C does not wait
#: behind a flood (tcp(7) has no name for it in Python; linux/tcp.h).
UNSENT_BYTES = 128 * 1024
_TCP_NOTSENT_LOWAT = 25

FEATURES = [
    "binary",
    "offsets",
    "gaps",
    "ack",
    "close-stdin",
    "pty",
    "pipes",
    "linger",
    "stats",
    "tail",
    "key",
    "replay",
    "repaint",
    "numbered-input",
    "timeline",
    "search",
    "ready",
    "ports",
    "workerd",
    "names",
    "events",
]

#: What only a WebSocket begins with: its type, and what protocol 1.0 has.
_OF_WEBSOCKETS = ("type", "config", "protocolVersion")

_WELCOME = About("Where the WebSocket is: on any path. Always 426")
_HELLO = About(
    "What the first message of a WebSocket says, for who may not open one",
    gives={200: Reply("The server, its protocol and limits", "application/json", {"type": "object"})},
)

_log = logs.get("server")


class Sockets:
    """All WebSockets of one server. server_id: of the runtime, the same over all its servers."""

    def __init__(self, settings: Settings, server_id: str, services: Services, live: Live) -> None:
        self._settings = settings
        self._server_id = server_id
        self._services = services
        self._live = live
        self._numbers = itertools.count(1)
        self._sockets: set[WebSocket] = set()

    def rows(self) -> tuple[Row, ...]:
        """Protocol 1.0 opens its WebSocket on any path."""
        return (
            Row("GET", "/", Access.GRANTED, self._welcome, about=_WELCOME),
            Row("GET", "/v1/hello", Access.GRANTED, self._say_hello, about=_HELLO),
            Row("GET", "/{path...}", Access.GRANTED, self._connect, upgrade=True),
        )

    async def _welcome(self, _call: Call) -> web.StreamResponse:
        text = "This is an MHNOS runtime. Connect to it by WebSocket."
        raise HttpError(426, "upgrade-required", text, {"Upgrade": "websocket"})

    async def _say_hello(self, call: Call) -> web.StreamResponse:
        """What a WebSocket would begin with, but for what protocol 1.0 has."""
        said = msgspec.to_builtins(self._hello(call.grant))
        for name in _OF_WEBSOCKETS:
            del said[name]
        return web.json_response(said, headers={hdrs.CACHE_CONTROL: "no-store"})

    async def _connect(self, call: Call) -> web.StreamResponse:
        request = call.request
        _check(request)
        transport = request.transport
        if transport is None or transport.is_closing():
            return GONE
        newer = m.SUBPROTOCOL in offered_protocols(request)
        _keep_queue_short(transport)
        websocket = WebSocket(transport, m.MAX_MESSAGE_BYTES, HEARTBEAT_SECONDS)
        transport.write(
            handshake.response(request.headers[hdrs.SEC_WEBSOCKET_KEY], m.SUBPROTOCOL if newer else None)
        )
        call.visitor.stay()
        # What the client has sent behind its handshake already is with the protocol of HTTP until here.
        request.protocol.set_parser(cast(Any, websocket))
        log = _log.bind(connection=next(self._numbers))
        log.debug("client connected", address=request.remote, newer=newer, principal=call.grant.principal)
        await self._serve(websocket, newer, call.grant, log)
        return GONE

    async def _serve(self, websocket: WebSocket, newer: bool, grant: Grant, log: logs.Log) -> None:
        self._sockets.add(websocket)
        try:
            connection = Connection(self._services, websocket, newer, grant, log)
            with self._live.entered(grant, lambda: connection.end(WSCloseCode.POLICY_VIOLATION)):
                await connection.run(self._hello(grant))
        except Exception:
            # An answer of HTTP would come in the middle of a WebSocket.
            log.exception("defect in a request")
            websocket.abort()
        finally:
            self._sockets.discard(websocket)
            log.debug("client left", code=websocket.close_code)

    def _hello(self, grant: Grant) -> m.Connected:
        settings = self._settings
        return m.Connected(
            m.ServerConfig("/workspace", settings.sandbox, settings.allow_openclaw),
            server_id=self._server_id,
            server_version=__version__,
            protocol=m.PROTOCOL,
            features=FEATURES,
            scopes=[scope.value for scope in Scope if grant.allows(scope)],
            limits=m.Limits(
                max_message_bytes=m.MAX_MESSAGE_BYTES,
                max_input_bytes=frames.MAX_INPUT_PAYLOAD_BYTES,
                max_processes=settings.max_processes,
                retention_bytes=settings.retention_bytes,
            ),
        )

    async def close(self) -> None:
        """Tell all clients that the server goes; they may come back to the next one."""
        for each in self._sockets:
            each.close(WSCloseCode.GOING_AWAY)
        closed = [each.closed for each in self._sockets]
        if closed:
            await asyncio.wait(closed, timeout=GOODBYE_SECONDS)
        for each in self._sockets:
            each.abort()


def _check(request: web.BaseRequest) -> None:
    """Raise HttpError unless this is a handshake, and there is room for one client more."""
    try:
        handshake.check(request.method, request.version, lambda name: request.headers.getall(name, ()))
    except NoHandshake as error:
        raise HttpError(error.status, "invalid-message", error.text, error.headers) from None
    if not room.for_client():
        raise HttpError(
            503,
            "too-many-connections",
            "The server has no descriptors left for another client.",
            {"Retry-After": str(RETRY_SECONDS), hdrs.CONNECTION: "close"},
            "close some connections, or raise the limit of open files (LimitNOFILE)",
        )


def _keep_queue_short(transport: asyncio.BaseTransport) -> None:
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, UNSENT_BYTES)
