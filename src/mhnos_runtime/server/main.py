"""The composition root: from the supervisor's hello to a listening server, and its orderly end.

Everything is built here, whole, and handed what it needs; nothing is set from outside afterwards.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import uvloop
from aiohttp import web

from mhnos_runtime.channel import Channel, Disconnected
from mhnos_runtime.config import Settings
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.leftovers import Clearing
from mhnos_runtime.files.partials import Partials
from mhnos_runtime.files.trash import Trash
from mhnos_runtime.files.upload_records import Records as UploadRecords
from mhnos_runtime.files.uploads import Uploads
from mhnos_runtime.launch import Hello, OtherVersion
from mhnos_runtime.observe import logs
from mhnos_runtime.observe.limit import LimitedLog, Limiter, LimitForeign
from mhnos_runtime.process.table import ProcessTable
from mhnos_runtime.server.api.archives import Archives
from mhnos_runtime.server.api.files import FileRoutes
from mhnos_runtime.server.api.health import Health
from mhnos_runtime.server.api.openapi import OpenApiRoute
from mhnos_runtime.server.api.settings import SettingsRoute
from mhnos_runtime.server.api.tokens import TokenRoutes
from mhnos_runtime.server.api.uploads import UploadRoutes
from mhnos_runtime.server.auth.gate import Gate
from mhnos_runtime.server.auth.grantfile import GrantFile
from mhnos_runtime.server.auth.live import Live
from mhnos_runtime.server.auth.stored import StoredGrants
from mhnos_runtime.server.auth.token import token_path
from mhnos_runtime.server.auth.token_store import Known, TokenStore
from mhnos_runtime.server.auth.token_watch import TokenWatch
from mhnos_runtime.server.auth.tokens import Tokens
from mhnos_runtime.server.connections.connection import Services
from mhnos_runtime.server.connections.events import EventLog
from mhnos_runtime.server.connections.requests.events import EventRequests
from mhnos_runtime.server.connections.requests.files import FileRequests
from mhnos_runtime.server.connections.requests.filesearch import FileSearchRequests
from mhnos_runtime.server.connections.requests.filewatch import FileWatchRequests
from mhnos_runtime.server.connections.requests.input import InputRequests
from mhnos_runtime.server.connections.requests.processes import ProcessRequests
from mhnos_runtime.server.connections.requests.search import SearchRequests
from mhnos_runtime.server.connections.requests.state import StateRequests
from mhnos_runtime.server.connections.requests.table import Domain, Requests
from mhnos_runtime.server.connections.requests.trash import TrashRequests
from mhnos_runtime.server.connections.requests.tree import TreeRequests
from mhnos_runtime.server.connections.requests.watching import WatchRequests
from mhnos_runtime.server.connections.sockets import Sockets
from mhnos_runtime.server.connections.turns import Turns
from mhnos_runtime.server.files.sweeper import Sweeper
from mhnos_runtime.server.files.uploading import Uploading
from mhnos_runtime.server.files.watching import Watchers
from mhnos_runtime.server.files.work import FileWork
from mhnos_runtime.server.http.app import App, BadRequests
from mhnos_runtime.server.http.door import Door
from mhnos_runtime.server.http.routes import Routes
from mhnos_runtime.server.processes.lifelog import LifeLog
from mhnos_runtime.server.processes.lifetimes import Lifetimes
from mhnos_runtime.server.processes.link import SupervisorLink
from mhnos_runtime.server.processes.planning import Planner
from mhnos_runtime.server.processes.records import Records
from mhnos_runtime.server.processes.reports import Reports
from mhnos_runtime.server.processes.starting import Starting
from mhnos_runtime.server.processes.terminals import Terminals

#: Threads take the interpreter for at most so long when the event loop wants it: echoes wait for it.
_SWITCH_SECONDS = 0.0005

#: How often the supervisor is told that the event loop turns.
_ALIVE_SECONDS = 1.0

#: How long the body of a request that has been answered is still read, and thrown away.
_LINGERING_SECONDS = 1.0
#: How long requests may take to end when the server does.
_SHUTDOWN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Domains:
    """The processes and files of one runtime, without a listening socket.

    reports: to be told what the supervisor says. connections: what every WebSocket is given.
    """

    settings: Settings
    table: ProcessTable
    reports: Reports
    connections: Services
    files: FileRoutes
    uploads: UploadRoutes
    close: Callable[[], None]


def build(hello: Hello, settings: Settings, link: SupervisorLink, gone: Callable[[], None]) -> Domains:
    """gone: called when there is no supervisor any more."""
    loop = asyncio.get_running_loop()
    partials = Partials(settings.state_dir / "partials")
    workspace, work = Workspace(settings.workspace, settings.min_free, partials), FileWork()
    table = ProcessTable(
        settings.max_processes, settings.retain_count, round(settings.retain_seconds * 1000), hello.spawned
    )
    turns = Turns(loop)
    events = EventLog(turns)
    records, terminals = Records(table, link, events.tell), Terminals(loop, link, settings.window_size)
    life_log = LifeLog(logs.get("server"), Limiter(time.monotonic))
    lifetimes = Lifetimes(loop, table, link, events.tell, life_log)
    starting = Starting(table, Planner(settings, hello, workspace), link)
    reports = Reports(loop, settings.stall_seconds, table, lifetimes, records, terminals, link, gone)
    files = FileRequests(workspace, work)
    log = logs.get("server")

    def tell(problem: str) -> None:
        log.warning("something in the trash cannot be used", problem=problem)

    trash = Trash(settings.state_dir / "trash", settings.trash_seconds, settings.min_free, tell)
    uploads = Uploads(UploadRecords(settings.state_dir / "uploads"), workspace)
    uploading = Uploading(uploads, workspace, work)
    watchers = Watchers(work)

    def left(problem: str) -> None:
        log.warning("something unfinished cannot be removed", problem=problem)

    clearing = Clearing(partials, workspace, left)

    def failed(error: Exception) -> None:
        log.error("defect in a sweep", error=repr(error))

    sweeps = partial(trash.sweep, workspace), uploading.sweep, clearing.sweep
    sweepers = [Sweeper(sweep, work, failed) for sweep in sweeps]
    requests = request_table(
        files,
        ProcessRequests(table, starting, lifetimes, records, work),
        WatchRequests(terminals),
        SearchRequests(table, work),
        FileSearchRequests(workspace, work),
        InputRequests(terminals),
        StateRequests(settings, table),
        FileWatchRequests(workspace, watchers),
        TreeRequests(workspace, trash, work),
        TrashRequests(workspace, trash, work),
    )

    def close() -> None:
        for each in (link, reports, lifetimes, terminals, *table, watchers, *sweepers, work, workspace):
            each.close()

    services = Services(table, lifetimes, terminals, turns, events, requests, link)
    contents = FileRoutes(workspace, work, Archives(workspace, work))
    return Domains(settings, table, reports, services, contents, UploadRoutes(uploading), close)


def request_table(files: FileRequests, *others: Domain) -> Requests:
    """The whole table of requests."""
    return Requests([domain.rows() for domain in (files, *others, EventRequests())], files.receive)


def routes(
    health: Health,
    settings: SettingsRoute,
    tokens: TokenRoutes,
    files: FileRoutes,
    uploads: UploadRoutes,
    websockets: Sockets,
    base_path: str,
) -> Routes:
    """The whole table of routes."""
    domains = (health, settings, tokens, files, uploads, websockets)
    rows = [row for domain in domains for row in domain.rows()]
    return Routes([*rows, *OpenApiRoute(rows, base_path).rows()], base_path)


async def serve(channel: Channel) -> None:
    """One life of the server. Returns when it is told to end, or when there is no supervisor any more.

    Raises Disconnected where the supervisor has gone before its hello, and OtherVersion.
    """
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    link = SupervisorLink(channel, loop)
    hello = await link.hello()
    settings = Settings.from_json(hello.settings)
    limiter = Limiter(time.monotonic)
    log = LimitedLog(logs.get("server"), limiter)
    logs.setup(settings.log_level, settings.log_format).addFilter(LimitForeign(limiter))
    logging.getLogger("aiohttp.server").addFilter(BadRequests(log))
    domains = build(hello, settings, link, stop.set)

    def end() -> None:
        """Also before the table is complete: nobody waits for that any more."""
        stop.set()
        domains.reports.ready.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    link.listen(domains.reports, crowded=domains.connections.turns.__bool__)
    await domains.reports.ready.wait()
    if not stop.is_set():
        await _serve_clients(hello, domains, link, limiter, log, stop)
    domains.close()


async def _serve_clients(
    hello: Hello,
    domains: Domains,
    link: SupervisorLink,
    limiter: Limiter,
    log: LimitedLog,
    stop: asyncio.Event,
) -> None:
    """From the first connection to the last one's end."""
    loop, settings = asyncio.get_running_loop(), domains.settings
    live = Live(loop)
    stored = StoredGrants(GrantFile(settings.state_dir), live, loop, hello.server_id)
    token = TokenStore(token_path(settings.state_dir), Known.from_dict(hello.token))
    watch = TokenWatch(token, lambda new: link.token(new.to_dict() if new else None))
    sockets = [socket.socket(fileno=fd) for fd in hello.listeners]
    port = sockets[0].getsockname()[1]
    gate = Gate(settings, port, Tokens(token, stored), time.monotonic, limiter)
    websockets = Sockets(settings, hello.server_id, domains.connections, live)
    table = routes(
        Health(domains.table),
        SettingsRoute(settings),
        TokenRoutes(stored),
        domains.files,
        domains.uploads,
        websockets,
        settings.base_path,
    )
    app = App(table, gate, live, log)
    http = web.Server(app.handle, access_log=None, lingering_time=_LINGERING_SECONDS, auto_decompress=False)
    door = Door(http, _tls(settings), log)
    for sock in sockets:
        door.open(sock)
    _show_life(loop, link, watch)
    logs.get("server").info("serving", processes=domains.table.active)
    await stop.wait()
    door.close()
    await websockets.close()
    http.pre_shutdown()
    await http.shutdown(_SHUTDOWN_SECONDS)
    await stored.close()


def _show_life(loop: asyncio.AbstractEventLoop, link: SupervisorLink, watch: TokenWatch) -> None:
    link.alive()
    watch.look()
    loop.call_later(_ALIVE_SECONDS, _show_life, loop, link, watch)


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(settings.tls_cert, settings.tls_key)
    return context


def main() -> None:
    """Serve with the control channel whose descriptor is the only argument."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    with socket.socket(fileno=int(sys.argv[1])) as sock, suppress(Disconnected):
        sock.set_inheritable(False)
        try:
            uvloop.run(serve(Channel(sock)))
        except OtherVersion as error:
            # Before the channel is closed: the supervisor then kills this process.
            sys.stderr.write(f"mhnos-runtime: {error}: {error.hint}\n")
            sys.stderr.flush()
            sys.exit(1)
