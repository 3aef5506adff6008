"""Requests to list, look at, make, move, copy and remove files: from messages to work in threads and back.
Knows no file system."""

from __future__ import annotations

from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.files import tree
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.draft import ANYTHING, Condition
from mhnos_runtime.files.steps import Steps
from mhnos_runtime.files.trash import Trash
from mhnos_runtime.files.version import check_version
from mhnos_runtime.server.auth.grants import Scope
from mhnos_runtime.server.connections.connection import Connection
from mhnos_runtime.server.connections.requests.table import Row, Rows
from mhnos_runtime.server.files.reach import reach
from mhnos_runtime.server.files.shown import file_info
from mhnos_runtime.server.files.work import FileWork
from mhnos_runtime.wire import messages as m


class TreeRequests:
    """Each runs beside all others, and is given up when its client leaves."""

    def __init__(self, workspace: Workspace, trash: Trash, work: FileWork) -> None:
        self._workspace, self._trash, self._work = workspace, trash, work

    def rows(self) -> Rows:
        return {
            m.ListFiles: Row(Scope.FILES, self.list),
            m.StatFile: Row(Scope.FILES, self.stat),
            m.MakeDirectory: Row(Scope.FILES, self.make, writes=True),
            m.MoveFile: Row(Scope.FILES, self.move, writes=True),
            m.CopyFile: Row(Scope.FILES, self.copy, writes=True),
            m.RemoveFile: Row(Scope.FILES, self.remove, writes=True),
        }

    def list(self, connection: Connection, request: m.ListFiles) -> None:
        self._begin(connection, request, self._listed(self._reach(connection), request))

    def stat(self, connection: Connection, request: m.StatFile) -> None:
        self._begin(connection, request, self._looked(self._reach(connection), request))

    def make(self, connection: Connection, request: m.MakeDirectory) -> None:
        self._begin(connection, request, self._made(self._reach(connection), request))

    def move(self, connection: Connection, request: m.MoveFile) -> None:
        self._begin(connection, request, self._moved(self._reach(connection), request))

    def copy(self, connection: Connection, request: m.CopyFile) -> None:
        self._begin(connection, request, self._copied(self._reach(connection), request))

    def remove(self, connection: Connection, request: m.RemoveFile) -> None:
        self._begin(connection, request, self._removed(self._reach(connection), request))

    def _reach(self, connection: Connection) -> Workspace:
        return reach(self._workspace, connection.grant)

    def _begin(self, connection: Connection, request: m.Message, steps: Steps[m.Message]) -> None:
        connection.later(self._work.run(steps, connection), request)

    # In threads

    def _listed(self, workspace: Workspace, request: m.ListFiles) -> Steps[m.Message]:
        after = None if request.after is None else _name(request.after)
        page = yield from tree.list_page(workspace, request.path, after, request.max)
        more = None if page.after is None else _cursor(page.after)
        return m.FileList(page.path, [file_info(each) for each in page.entries], more, id=request.id)

    def _looked(self, workspace: Workspace, request: m.StatFile) -> Steps[m.Message]:
        entry, sha256 = yield from tree.look(
            workspace, request.path, follow=request.follow, sha256=request.sha256
        )
        return m.FileStat(file_info(entry), sha256, id=request.id)

    def _made(self, workspace: Workspace, request: m.MakeDirectory) -> Steps[m.Message]:
        entry = yield from tree.make_directory(workspace, request.path, parents=request.parents)
        return m.DirectoryMade(file_info(entry), id=request.id)

    def _moved(self, workspace: Workspace, request: m.MoveFile) -> Steps[m.Message]:
        moved = yield from tree.move(
            workspace,
            self._trash,
            request.from_,
            request.to,
            replace=request.replace,
            condition=_condition(request.version),
        )
        return m.FileMoved(file_info(moved.entry), moved.trash, id=request.id)

    def _copied(self, workspace: Workspace, request: m.CopyFile) -> Steps[m.Message]:
        moved, done = yield from tree.copy(
            workspace, self._trash, request.from_, request.to, replace=request.replace
        )
        return m.FileCopied(
            file_info(moved.entry),
            done.copied,
            done.bytes,
            done.skipped,
            done.skipped_count,
            moved.trash,
            id=request.id,
        )

    def _removed(self, workspace: Workspace, request: m.RemoveFile) -> Steps[m.Message]:
        item = yield from tree.remove(
            workspace,
            self._trash,
            request.path,
            recursive=request.recursive,
            outright=request.outright,
            condition=_condition(request.version),
        )
        return m.FileRemoved(workspace.normalise(request.path), item, id=request.id)


def _condition(version: str | None) -> Condition:
    return ANYTHING if version is None else Condition(frozenset({check_version(version)}))


def _cursor(name: bytes) -> str:
    """A name as text that `_name` understands. One that is not UTF-8 stands behind a NUL, which no name has,
    a character for each of its bytes."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return "\0" + name.decode("latin-1")


def _name(cursor: str) -> bytes:
    try:
        return cursor[1:].encode("latin-1") if cursor.startswith("\0") else cursor.encode()
    except UnicodeEncodeError:
        raise InvalidRequest("`after` is not what `next` was") from None
