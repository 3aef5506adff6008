"""Requests to watch a process's output, and to say how much of it was used. Knows offsets, no output."""

from __future__ import annotations

from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.process.table import Process
from mhnos_runtime.server.auth.grants import Scope
from mhnos_runtime.server.connections.connection import Connection
from mhnos_runtime.server.connections.requests.table import Row, Rows
from mhnos_runtime.server.connections.shown import describe
from mhnos_runtime.server.connections.viewer import Viewer
from mhnos_runtime.server.processes.terminals import Terminals
from mhnos_runtime.wire import messages as m


class WatchRequests:
    """Handlers that change what one connection watches."""

    def __init__(self, terminals: Terminals) -> None:
        self._terminals = terminals

    def rows(self) -> Rows:
        return {
            m.Attach: Row(Scope.VIEW, self.attach),
            m.Detach: Row(Scope.VIEW, self.detach),
            m.Ack: Row(Scope.VIEW, self.ack),
            m.Timeline: Row(Scope.VIEW, self.timeline),
        }

    def attach(self, connection: Connection, request: m.Attach) -> None:
        process = connection.find(request.pid)
        if request.repaint:
            connection.require(m.Resize)
        start, reply = start_of(process, request), connection.begin()

        def attached(viewer: Viewer) -> None:
            connection.answer(_attached(viewer, request), reply)

        connection.watching.watch(process, start, request.acks, attached)
        if request.repaint:
            self._terminals.repaint(process)

    def detach(self, connection: Connection, request: m.Detach) -> m.Detached:
        pid = connection.pid(request.pid)
        connection.watching.unwatch(pid)
        return m.Detached(pid, id=request.id)

    def ack(self, connection: Connection, request: m.Ack) -> None:
        viewer = connection.watching.get(connection.pid(request.pid))
        if viewer is not None:
            viewer.acknowledge(request.offset)

    def timeline(self, connection: Connection, request: m.Timeline) -> m.TimelineAnswer:
        process = connection.find(request.pid)
        times, following = process.log.times(request.from_)
        return m.TimelineAnswer(process.pid, times, following, id=request.id)


def start_of(process: Process, request: m.Attach) -> int:
    """The offset that an attach begins at. A tail begins at what is promised, not at what the next burst may
    be taking. Raises InvalidRequest for an offset beyond the end."""
    log = process.log
    if request.tail is not None:
        return max(log.oldest, log.head - request.tail)
    if request.since is not None:
        return max(log.oldest, log.since(request.since))
    if request.from_ == "end":
        return log.head
    if isinstance(request.from_, int):
        if request.from_ > log.head:
            raise InvalidRequest(f"from: {request.from_} is beyond the end of the output ({log.head})")
        return request.from_
    return 0


def _attached(viewer: Viewer, request: m.Attach) -> m.Attached:
    process = viewer.process
    return m.Attached(
        pid=process.pid,
        status=process.state.value,
        from_=viewer.start,
        next=viewer.replay_end,
        process=describe(process),
        id=request.id,
    )
