"""The HTTP side: one gate before every route, the WebSocket upgrade, and /health."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiohttp import WSCloseCode, hdrs, web
from aiohttp.http import HttpProcessingError

from mhnos_runtime import __version__
from mhnos_runtime.observe import logs
from mhnos_runtime.observe.limit import LimitedLog
from mhnos_runtime.server import handshake, requests, room
from mhnos_runtime.server.auth import Gate, RequestFacts, Verdict
from mhnos_runtime.server.connection import Connection
from mhnos_runtime.server.door import Visitor
from mhnos_runtime.server.handshake import NoHandshake
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

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class App:
    """Routes of one server. `routes` is the whole list; everything else is 404, behind the gate too."""

    def __init__(self, runtime: Runtime, gate: Gate, log: LimitedLog) -> None:
        """log: for what strangers cause."""
        self._runtime = runtime
        self._gate = gate
        self._stranger_log = log
        self._start = time.monotonic()
        self._numbers = itertools.count(1)
        self._sockets: set[WebSocket] = set()
        self.routes: dict[tuple[str, str], Handler] = {
            ("GET", "/health"): self._health,
            ("HEAD", "/health"): self._health,
            ("GET", "/"): self._welcome,
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer any request whose head is complete."""
        visitor = _visitor(request)
        if visitor is None:
            return _GONE
        with visitor.answering():
            try:
                return await self._answer(request, visitor)
            except Exception:
                self._stranger_log.exception("defect in a request")
                return _problem(500, "internal", "The server failed; its log says why.")

    async def _answer(self, request: web.BaseRequest, visitor: Visitor) -> web.StreamResponse:
        facts = _facts(request)
        verdict = self._gate.check(facts)
        if not verdict.allowed:
            return _refused(verdict, facts)
        if verdict.known:
            visitor.welcome()
        if facts.upgrade:
            return await self._connect(request, visitor)
        route = self.routes.get((request.method, request.path))
        return (
            await route(request)
            if route is not None
            else _problem(404, "not-found", "There is nothing here.")
        )

    async def _health(self, _request: web.BaseRequest) -> web.Response:
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

    async def _welcome(self, _request: web.BaseRequest) -> web.Response:
        return _problem(
            426,
            "upgrade-required",
            "This is an MHNOS runtime. Connect to it by WebSocket.",
            {"Upgrade": "websocket"},
        )

    async def _connect(self, request: web.BaseRequest, visitor: Visitor) -> web.StreamResponse:
        try:
            handshake.check(request.method, request.version, lambda name: request.headers.getall(name, ()))
        except NoHandshake as error:
            return _problem(error.status, "invalid-message", error.text, error.headers)
        if not room.for_client():
            return _problem(
                503,
                "too-many-connections",
                "The server has no descriptors left for another client.",
                {"Retry-After": str(RETRY_SECONDS), hdrs.CONNECTION: "close"},
                "close some connections, or raise the limit of open files (LimitNOFILE)",
            )
        transport = request.transport
        if transport is None or transport.is_closing():
            return _GONE
        newer = m.SUBPROTOCOL in _protocols(request)
        _keep_queue_short(transport)
        connection = WebSocket(transport, m.MAX_MESSAGE_BYTES, HEARTBEAT_SECONDS)
        transport.write(
            handshake.response(request.headers[hdrs.SEC_WEBSOCKET_KEY], m.SUBPROTOCOL if newer else None)
        )
        visitor.stay()
        log = _log.bind(connection=next(self._numbers))
        log.info("client connected", address=request.remote, newer=newer)
        self._sockets.add(connection)
        try:
            serving = Connection(self._runtime, connection, newer, requests.handle, log)
            # What the client has sent behind its handshake already is with the protocol of HTTP until here.
            request.protocol.set_parser(cast(Any, connection))
            await serving.run(self._hello())
        except Exception:
            # An answer of HTTP would come in the middle of a WebSocket.
            log.exception("defect in a request")
            connection.abort()
        finally:
            self._sockets.discard(connection)
            log.info("client left", code=connection.close_code)
        return _GONE

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


class _Gone(web.Response):
    """The answer of a connection that is not, or not any more, one of HTTP."""

    async def prepare(self, _request: web.BaseRequest, /) -> None:
        """Say that the connection is gone; any other error would be logged as a defect."""
        raise ConnectionResetError


_GONE = _Gone()


def _visitor(request: web.BaseRequest) -> Visitor | None:
    """None: it has left."""
    protocol = None if request.transport is None else request.transport.get_protocol()
    return protocol if isinstance(protocol, Visitor) else None


def _protocols(request: web.BaseRequest) -> tuple[str, ...]:
    offered = ",".join(request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, ()))
    return tuple(item.strip() for item in offered.split(",") if item.strip())


class BadRequests(logging.Filter):
    """For aiohttp's log: a request that is no HTTP is its sender's mistake, and worth a line without a
    traceback."""

    def __init__(self, log: LimitedLog) -> None:
        super().__init__()
        self._log = log

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError):
            return True
        address = record.args[0] if isinstance(record.args, tuple) and record.args else None
        self._log.warning("bad request", address=address, reason=error.message.partition("\n")[0])
        return False


def _facts(request: web.BaseRequest) -> RequestFacts:
    transport = request.transport
    local = transport.get_extra_info("sockname") if transport is not None else None
    return RequestFacts(
        remote_address=request.remote or "",
        hosts=tuple(request.headers.getall(hdrs.HOST, ())),
        origins=tuple(request.headers.getall(hdrs.ORIGIN, ())),
        authorizations=tuple(request.headers.getall(hdrs.AUTHORIZATION, ())),
        query_tokens=tuple(request.query.getall("token", ())),
        subprotocols=_protocols(request),
        local_address=local[0] if isinstance(local, tuple) else "",
        scheme="https" if transport is not None and transport.get_extra_info("sslcontext") else "http",
        method=request.method,
        path=request.path,
        upgrade="websocket" in (value.lower() for value in request.headers.getall(hdrs.UPGRADE, ())),
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
