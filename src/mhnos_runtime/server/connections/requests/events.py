"""Requests to be told of what becomes of processes, and to be told no more. Knows no event."""

from __future__ import annotations

from mhnos_runtime.server.auth.grants import Scope
from mhnos_runtime.server.connections.connection import Connection
from mhnos_runtime.server.connections.requests.table import Row, Rows
from mhnos_runtime.wire import messages as m


class EventRequests:
    """Handlers that begin and end one connection's events."""

    def rows(self) -> Rows:
        return {
            m.Subscribe: Row(Scope.VIEW, self.subscribe),
            m.Unsubscribe: Row(Scope.VIEW, self.unsubscribe),
        }

    def subscribe(self, connection: Connection, request: m.Subscribe) -> None:
        """No event comes before the answer, which may have to wait for earlier ones."""

        def begin() -> m.Subscribed:
            connection.events.begin()
            return m.Subscribed(id=request.id)

        connection.in_turn(begin)

    def unsubscribe(self, connection: Connection, request: m.Unsubscribe) -> None:
        """No event comes after the answer."""

        def end() -> m.Unsubscribed:
            connection.events.end()
            return m.Unsubscribed(id=request.id)

        connection.in_turn(end)
