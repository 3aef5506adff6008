"""Requests to type into a process, and to set the size of its terminal. Knows no descriptor."""

from __future__ import annotations

import msgspec

from mhnos_runtime.server.auth.grants import Scope
from mhnos_runtime.server.connections.connection import Connection
from mhnos_runtime.server.connections.requests.table import Row, Rows
from mhnos_runtime.server.processes.terminals import Terminals
from mhnos_runtime.wire import messages as m


class InputRequests:
    """Handlers that type into one process, or set its size."""

    def __init__(self, terminals: Terminals) -> None:
        self._terminals = terminals

    def rows(self) -> Rows:
        return {
            m.Write: Row(Scope.CONTROL, self.write),
            m.CloseStdin: Row(Scope.CONTROL, self.close_stdin),
            m.OpenInput: Row(Scope.CONTROL, self.open_input),
            m.Resize: Row(Scope.CONTROL, self.resize),
        }

    def write(self, connection: Connection, request: m.Write) -> None:
        process = connection.get(request.pid)
        if process is not None:
            connection.input.write(process, request.data)

    def close_stdin(self, connection: Connection, request: m.CloseStdin) -> m.StdinClosed:
        process = connection.find(request.pid)
        self._terminals.close_stdin(process)
        return m.StdinClosed(process.pid, id=request.id)

    def open_input(self, connection: Connection, request: m.OpenInput) -> m.InputOpened:
        process = connection.find(request.pid)
        client = connection.input.number(process, request.client)
        return m.InputOpened(
            process.pid,
            next=client.typed,
            uncertain_from=msgspec.UNSET if client.uncertain_from is None else client.uncertain_from,
            id=request.id,
        )

    def resize(self, connection: Connection, request: m.Resize) -> None:
        process = connection.get(request.pid)
        if process is not None:
            self._terminals.resize(process, request.cols, request.rows)
