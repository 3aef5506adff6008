"""The HTTP side: one gate before every route, the WebSocket upgrade, and /health. Maps errors to statuses."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from collections.abc import Awaitable, Callable

from aiohttp import WSCloseCode, hdrs, web

from mhnos_runtime import __version__
from mhnos_runtime.observe import logs
from mhnos_runtime.server import requests, room
from mhnos_runtime.server.auth import Gate, RequestFacts, Verdict
from mhnos_runtime.server.connection import Connection
from mhnos_runtime.server.runtime import Runtime
from mhnos_runtime.server.websocket import WebSocket
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
    "ready",
    "ports",
    "workerd",
]

_log = logs.get("server")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class App:
    """Routes of one server. `routes` is the whole list; everything else is 404, behind the gate too."""

    def __init__(self, runtime: Runtime, gate: Gate) -> None:
        self._runtime = runtime
        self._gate = gate
        self._start = time.monotonic()
        self._numbers = itertools.count(1)
        self._sockets: set[WebSocket] = set()
        self.routes: dict[tuple[str, str], Handler] = {
            ("GET", "/health"): self._health,
            ("HEAD", "/health"): self._health,
            ("GET", "/"): self._welcome,
        }
        # Not as a route: there are requests that match none, such as OPTIONS *.
        self.web = web.Application(middlewares=[self._handle])

    @web.middleware
    async def _handle(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        del handler
        facts = _facts(request)
        verdict = self._gate.check(facts)
        if not verdict.allowed:
            return _refused(verdict, facts)
        if facts.upgrade:
            return await self._connect(request)
        route = self.routes.get((request.method, request.path))
        return (
            await route(request)
            if route is not None
            else _problem(404, "not-found", "There is nothing here.")
        )

    async def _health(self, _request: web.Request) -> web.Response:
        stats = self._runtime.stats()
        return web.json_response(
            {
                "status": "ok",
                "uptime": round(time.monotonic() - self._start, 3),
                "processes": {
                    "totalSpawned": stats.total_spawned,
                    "totalKilled": stats.total_killed,
                    "active": stats.active,
                },
            }
        )

    async def _welcome(self, _request: web.Request) -> web.Response:
        return _problem(
            426,
            "upgrade-required",
            "This is an MHNOS runtime. Connect to it by WebSocket.",
            {"Upgrade": "websocket"},
        )

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        response = _Handshake(protocols=(m.SUBPROTOCOL,), compress=False)
        if not response.can_prepare(request):
            return _problem(400, "invalid-message", "This is not a WebSocket handshake.")
        if not room.for_client():
            return _problem(
                503,
                "too-many-connections",
                "The server has no descriptors left for another client.",
                {"Retry-After": str(RETRY_SECONDS), hdrs.CONNECTION: "close"},
                "close some connections, or raise the limit of open files (LimitNOFILE)",
            )
        await response.prepare(request)
        if request.transport is None:
            return response
        _keep_queue_short(request.transport)
        newer = response.ws_protocol is not None
        log = _log.bind(connection=next(self._numbers))
        log.info("client connected", address=request.remote, newer=newer)
        connection = WebSocket(request.transport, m.MAX_MESSAGE_BYTES, HEARTBEAT_SECONDS)
        self._sockets.add(connection)
        try:
            await Connection(self._runtime, connection, newer, requests.handle, log).run(self._hello())
        finally:
            self._sockets.discard(connection)
            log.info("client left", code=connection.close_code)
        return response

    def _hello(self) -> m.Connected:
        settings = self._runtime.settings
        return m.Connected(
            m.ServerConfig("/workspace", settings.sandbox, settings.allow_openclaw),
            server_id=self._runtime.server_id,
            server_version=__version__,
            protocol=m.PROTOCOL,
            features=FEATURES,
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


class _Handshake(web.WebSocketResponse[bool]):
    """The handshake of a WebSocket; what follows it is not sent by the HTTP side."""

    async def write_eof(self) -> None:  # type: ignore[override]
        """Say that the connection is gone; any other error would be logged as a defect."""
        raise ConnectionResetError


def _facts(request: web.Request) -> RequestFacts:
    transport = request.transport
    local = transport.get_extra_info("sockname") if transport is not None else None
    protocols = ",".join(request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, ()))
    return RequestFacts(
        remote_address=request.remote or "",
        hosts=tuple(request.headers.getall(hdrs.HOST, ())),
        origins=tuple(request.headers.getall(hdrs.ORIGIN, ())),
        authorizations=tuple(request.headers.getall(hdrs.AUTHORIZATION, ())),
        query_tokens=tuple(request.query.getall("token", ())),
        subprotocols=tuple(item.strip() for item in protocols.split(",") if item.strip()),
        local_address=local[0] if isinstance(local, tuple) else "",
        scheme="https" if transport is not None and transport.get_extra_info("sslcontext") else "http",
        method=request.method,
        path=request.path,
        upgrade=request.headers.get(hdrs.UPGRADE, "").lower() == "websocket",
    )


def _refused(verdict: Verdict, facts: RequestFacts) -> web.Response:
    if verdict.report:
        _log.warning(
            "request refused", address=facts.remote_address, code=verdict.code, unreported=verdict.unreported
        )
    headers = {"Retry-After": str(verdict.retry_after_s)} if verdict.retry_after_s else {}
    if verdict.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return _problem(verdict.status, verdict.code, verdict.text, headers, verdict.hint)


def _problem(
    status: int, code: str, text: str, headers: dict[str, str] | None = None, hint: str = ""
) -> web.Response:
    body = {"error": text, "code": code, **({"hint": hint} if hint else {})}
    return web.json_response(body, status=status, headers=headers)


def _keep_queue_short(transport: asyncio.BaseTransport) -> None:
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, UNSENT_BYTES)
