"""Requests about the server itself."""

from __future__ import annotations

import time

from mhnos_runtime.config import Settings
from mhnos_runtime.process.table import ProcessTable
from mhnos_runtime.server.auth.grants import Access, Scope
from mhnos_runtime.server.connections.connection import Connection
from mhnos_runtime.server.connections.requests.table import Row, Rows
from mhnos_runtime.server.connections.shown import stats
from mhnos_runtime.wire import messages as m


class StateRequests:
    """Handlers about the server."""

    def __init__(self, settings: Settings, table: ProcessTable) -> None:
        self._settings = settings
        self._table = table

    def rows(self) -> Rows:
        return {
            m.Status: Row(Scope.VIEW, self.status),
            m.Ping: Row(Access.GRANTED, self.ping),
        }

    def status(self, _connection: Connection, request: m.Status) -> m.StatusAnswer:
        settings = self._settings
        config = m.ServerConfig(
            "/workspace", settings.sandbox, settings.allow_openclaw, max_processes=settings.max_processes
        )
        return m.StatusAnswer(config, stats(self._table), id=request.id)

    def ping(self, _connection: Connection, request: m.Ping) -> m.Pong:
        return m.Pong(time.time_ns() // 1_000_000, id=request.id)
