"""The route that strangers may ask: whether the server serves, with counts and no more."""

from __future__ import annotations

import time

from aiohttp import web

from mhnos_runtime.server.auth.grants import Access
from mhnos_runtime.server.http.call import Call
from mhnos_runtime.server.http.routes import Row
from mhnos_runtime.server.processes.runtime import Runtime


class Health:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._start = time.monotonic()

    def rows(self) -> tuple[Row, ...]:
        return (Row("GET", "/health", Access.OPEN, self._health),)

    async def _health(self, _call: Call) -> web.Response:
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
