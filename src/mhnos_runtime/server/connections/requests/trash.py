"""Requests to list, restore and empty the trash: from messages to work in threads and back. Knows no file
system."""

from __future__ import annotations

from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.steps import Steps
from mhnos_runtime.files.trash import Item, Trash
from mhnos_runtime.server.auth.grants import Scope
from mhnos_runtime.server.connections.connection import Connection
from mhnos_runtime.server.connections.requests.table import Row, Rows
from mhnos_runtime.server.files.reach import reach
from mhnos_runtime.server.files.shown import file_info
from mhnos_runtime.server.files.work import FileWork
from mhnos_runtime.wire import messages as m


class TrashRequests:
    """A grant that is limited to folders sees what was in them."""

    def __init__(self, workspace: Workspace, trash: Trash, work: FileWork) -> None:
        self._workspace, self._trash, self._work = workspace, trash, work

    def rows(self) -> Rows:
        return {
            m.ListTrash: Row(Scope.FILES, self.list),
            m.RestoreFile: Row(Scope.FILES, self.restore, writes=True),
            m.EmptyTrash: Row(Scope.FILES, self.empty, writes=True),
        }

    def list(self, connection: Connection, request: m.ListTrash) -> None:
        self._begin(connection, request, self._listed(self._reach(connection), request))

    def restore(self, connection: Connection, request: m.RestoreFile) -> None:
        self._begin(connection, request, self._restored(self._reach(connection), request))

    def empty(self, connection: Connection, request: m.EmptyTrash) -> None:
        self._begin(connection, request, self._emptied(self._reach(connection), request))

    def _reach(self, connection: Connection) -> Workspace:
        return reach(self._workspace, connection.grant)

    def _begin(self, connection: Connection, request: m.Message, steps: Steps[m.Message]) -> None:
        connection.later(self._work.run(steps, connection), request)

    # In threads

    def _listed(self, workspace: Workspace, request: m.ListTrash) -> Steps[m.Message]:
        items, more = yield from self._trash.page(request.before, request.max, workspace.covers)
        return m.TrashList([_shown(each) for each in items], items[-1].id if more else None, id=request.id)

    def _restored(self, workspace: Workspace, request: m.RestoreFile) -> Steps[m.Message]:
        entry = yield from self._trash.restore(workspace, request.item, request.to)
        return m.FileRestored(file_info(entry), id=request.id)

    def _emptied(self, workspace: Workspace, request: m.EmptyTrash) -> Steps[m.Message]:
        items = yield from self._trash.empty(request.items, workspace.covers)
        return m.TrashEmptied(items, id=request.id)


def _shown(item: Item) -> m.TrashItem:
    record = item.record
    return m.TrashItem(item.id, item.path, record.kind, record.size, record.removed_ms, item.expires_ms)
