"""The route that strangers may ask: whether the server serves, with counts and no more."""

from __future__ import annotations

import time

from aiohttp import web

from mhnos_runtime.process.table import ProcessTable
from mhnos_runtime.server.auth.grants import Access
from mhnos_runtime.server.http.call import Call
from mhnos_runtime.server.http.routes import About, Reply, Row

_ABOUT = About(
    "Whether the server serves",
    gives={
        200: Reply(
            "It does; uptime in seconds",
            "application/json",
            {
                "type": "object",
                "required": ["status", "uptime", "processes"],
                "properties": {
                    "status": {"const": "ok"},
                    "uptime": {"type": "number"},
                    "processes": {"type": "object", "additionalProperties": {"type": "integer"}},
                },
            },
        )
    },
)


class Health:
    def __init__(self, table: ProcessTable) -> None:
        self._table = table
        self._start = time.monotonic()

    def rows(self) -> tuple[Row, ...]:
        return (Row("GET", "/health", Access.OPEN, self._health, about=_ABOUT),)

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
