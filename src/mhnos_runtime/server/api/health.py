"""The route that strangers may ask: whether the server serves, with counts and no more."""

from __future__ import annotations

import time

from aiohttp import web

from mhnos_runtime.process.table import ProcessTable
from mhnos_runtime.server.auth.grants import Access
from mhnos_runtime.server.http.call import Call
from mhnos_runtime.server.http.routes import Row


class Health:
    def __init__(self, table: ProcessTable) -> None:
        self._table = table
        self._start = time.monotonic()

    def rows(self) -> tuple[Row, ...]:
        return (Row("GET", "/health", Access.OPEN, self._health),)

    async def _health(self, _call: Call) -> web.Response:
        spawned, active = self._table.total_spawned, self._table.active
        return web.json_response(
            {
                "status": "ok",
                "uptime": round(time.monotonic() - self._start, 3),
                "processes": {
                    "totalSpawned": spawned,
                    "totalKilled": spawned - active,
                    "active": active,
                },
            }
        )
