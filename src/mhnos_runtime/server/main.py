"""The composition root: from the supervisor's first words to a listening server, and its orderly end."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import ssl
import sys
import time
from typing import Any

import uvloop
from aiohttp import web

from mhnos_runtime.channel import Channel
from mhnos_runtime.config import Settings
from mhnos_runtime.launch import ExitRecord, ProcessDescriptors, ProcessRecord
from mhnos_runtime.observe import logs
from mhnos_runtime.observe.limit import LimitedLog, Limiter, LimitForeign
from mhnos_runtime.server.api.health import Health
from mhnos_runtime.server.api.tokens import TokenRoutes
from mhnos_runtime.server.auth.gate import Gate
from mhnos_runtime.server.auth.grantfile import GrantFile
from mhnos_runtime.server.auth.live import Live
from mhnos_runtime.server.auth.stored import StoredGrants
from mhnos_runtime.server.auth.token import token_path
from mhnos_runtime.server.auth.token_store import Known, TokenStore
from mhnos_runtime.server.auth.token_watch import TokenWatch
from mhnos_runtime.server.auth.tokens import Tokens
from mhnos_runtime.server.connections.sockets import Sockets
from mhnos_runtime.server.connections.turns import Turns
from mhnos_runtime.server.http.app import App, BadRequests
from mhnos_runtime.server.http.door import Door
from mhnos_runtime.server.http.routes import Routes
from mhnos_runtime.server.processes.link import SupervisorLink
from mhnos_runtime.server.processes.runtime import Runtime

#: Threads take the interpreter for at most so long when the event loop wants it: echoes wait for it.
_SWITCH_SECONDS = 0.0005

#: How often the supervisor is told that the event loop turns; it gives up a server that is silent for 10 s.
_ALIVE_SECONDS = 1.0

#: How long the body of a request that has been answered is still read, and thrown away.
_LINGERING_SECONDS = 1.0
#: How long requests may take to end when the server does.
_SHUTDOWN_SECONDS = 1.0


class Server:
    """One life of the server. Is the listener of the supervisor link, and passes on to the runtime."""

    def __init__(self, channel: Channel) -> None:
        self._loop = asyncio.get_running_loop()
        self._runtime: Runtime
        self._token: TokenStore
        self._stored: StoredGrants
        self._watch: TokenWatch
        self._listeners: list[int] = []
        self._ready = self._loop.create_future()
        self._stop = asyncio.Event()
        self._limiter = Limiter(time.monotonic)
        self._log = LimitedLog(logs.get("server"), self._limiter)
        self._turns = Turns(self._loop)
        self._live = Live(self._loop)
        self._link = SupervisorLink(channel, self._loop, self._turns, self)

    # What the supervisor says

    def on_hello(self, hello: dict[str, Any]) -> None:
        settings = Settings.from_json(hello["settings"])
        handler = logs.setup(settings.log_level, settings.log_format)
        handler.addFilter(LimitForeign(self._limiter))
        logging.getLogger("aiohttp.server").addFilter(BadRequests(self._log))
        self._listeners = hello["listeners"]
        self._token = TokenStore(token_path(settings.state_dir), Known.from_dict(hello.get("token")))
        file = GrantFile(settings.state_dir)
        self._stored = StoredGrants(file, self._live, self._loop, hello["server_id"])
        self._watch = TokenWatch(self._token, lambda new: self._link.token(new.to_dict() if new else None))
        self._runtime = Runtime(self._loop, self._turns, settings, hello)
        self._runtime.link = self._link

    def on_process(self, record: ProcessRecord, descriptors: ProcessDescriptors, new: bool) -> None:
        self._runtime.on_process(record, descriptors, new)

    def on_ready(self) -> None:
        self._runtime.on_restored()
        self._ready.set_result(None)

    def on_output(self, pid: int) -> None:
        self._runtime.on_output(pid)

    def on_exit(self, pid: int, exit_record: ExitRecord) -> None:
        self._runtime.on_exit(pid, exit_record)

    def on_supervisor_gone(self) -> None:
        self._stop.set()

    # Its life

    async def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop.set)
        await self._ready
        sockets = [socket.socket(fileno=fd) for fd in self._listeners]
        websockets = Sockets(self._runtime, self._live)
        app = App(
            routes(self._runtime, websockets, self._stored, self._runtime.settings.base_path),
            self._gate(sockets),
            self._live,
            self._log,
        )
        http = web.Server(app.handle, access_log=None, lingering_time=_LINGERING_SECONDS)
        door = Door(http, _tls(self._runtime.settings), self._log)
        for sock in sockets:
            door.open(sock)
        self._show_life()
        logs.get("server").info("serving", processes=self._runtime.table.active)
        await self._stop.wait()
        door.close()
        await websockets.close()
        http.pre_shutdown()
        await http.shutdown(_SHUTDOWN_SECONDS)
        await self._stored.close()
        self._runtime.close()

    def _show_life(self) -> None:
        self._link.alive()
        self._watch.look()
        self._loop.call_later(_ALIVE_SECONDS, self._show_life)

    def _gate(self, sockets: list[socket.socket]) -> Gate:
        settings = self._runtime.settings
        port = sockets[0].getsockname()[1]
        return Gate(settings, port, Tokens(self._token, self._stored), time.monotonic, self._limiter)


def routes(runtime: Runtime, websockets: Sockets, stored: StoredGrants, base_path: str) -> Routes:
    """The whole table of routes."""
    domains = (Health(runtime), TokenRoutes(stored), websockets)
    return Routes([row for domain in domains for row in domain.rows()], base_path)


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(settings.tls_cert, settings.tls_key)
    return context


def main() -> None:
    """Serve with the control channel whose descriptor is the only argument."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    with socket.socket(fileno=int(sys.argv[1])) as sock:
        sock.set_inheritable(False)
        uvloop.run(_run(Channel(sock)))


async def _run(channel: Channel) -> None:
    await Server(channel).run()
