"""Rows of a table on a port: a real door, gate and app around them, with tokens that are given."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import AsyncIterator, Iterable

from aiohttp import web

from mhnos_runtime.observe import logs
from mhnos_runtime.observe.limit import LimitedLog, Limiter
from mhnos_runtime.server.auth.gate import Gate, Tokens
from mhnos_runtime.server.auth.grants import Grant
from mhnos_runtime.server.auth.live import Live
from mhnos_runtime.server.http.app import App
from mhnos_runtime.server.http.door import Door
from mhnos_runtime.server.http.routes import Routes, Row
from tests.server.auth.gates import Setting


class Some:
    """Grants of which each one's token is the last word of its principal."""

    in_force = True

    def __init__(self, *grants: Grant) -> None:
        self.grants = {grant.principal.rpartition(":")[2]: grant for grant in grants}

    def find(self, candidate: str) -> Grant | None:
        return self.grants.get(candidate)


@contextlib.asynccontextmanager
async def serve(
    rows: Iterable[Row], tokens: Tokens, live: Live, setting: Setting | None = None
) -> AsyncIterator[tuple[str, int]]:
    """The address of an app that has these rows."""
    listener = socket.create_server(("127.0.0.1", 0))
    address: tuple[str, int] = listener.getsockname()
    log = LimitedLog(logs.get("test"), Limiter(time.monotonic))
    gate = Gate(setting or Setting(), address[1], tokens, time.monotonic, Limiter(time.monotonic))
    http = web.Server(App(Routes(rows), gate, live, log).handle, access_log=None)
    door = Door(http, None, log)
    door.open(listener)
    try:
        yield address
    finally:
        door.close()
        # 0 would wait for as long as handlers do.
        await http.shutdown(0.1)
