"""Requests to search the files of the workspace, one at a time for each connection. Knows no tree and no
pattern's syntax."""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakKeyDictionary

from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.ignore import USUAL, Ignore
from mhnos_runtime.files.lines import Told
from mhnos_runtime.files.search import Query, Result, search
from mhnos_runtime.files.steps import Steps
from mhnos_runtime.patterns import compiled
from mhnos_runtime.process.kinds import CACHES
from mhnos_runtime.server.auth.grants import Scope
from mhnos_runtime.server.connections.connection import Connection
from mhnos_runtime.server.connections.requests.table import Row, Rows
from mhnos_runtime.server.files.reach import reach
from mhnos_runtime.server.files.work import FileWork
from mhnos_runtime.wire import messages as m

#: From the top of the workspace.
_PASSED_OVER = (*USUAL, *sorted(f"{path}/" for path in CACHES))


class FileSearchRequests:
    """Searches of all connections."""

    def __init__(self, workspace: Workspace, work: FileWork) -> None:
        self._workspace = workspace
        self._work = work
        self._turns: WeakKeyDictionary[Connection, asyncio.Lock] = WeakKeyDictionary()

    def rows(self) -> Rows:
        return {m.SearchFiles: Row(Scope.FILES, self.search)}

    def search(self, connection: Connection, request: m.SearchFiles) -> None:
        connection.later(self._answered(connection, request), request)

    async def _answered(self, connection: Connection, request: m.SearchFiles) -> m.FileSearchResult:
        async with self._turns.setdefault(connection, asyncio.Lock()):
            workspace = reach(self._workspace, connection.grant)
            return _answer(request, await self._work.run(_steps(workspace, request), connection))


def _steps(workspace: Workspace, request: m.SearchFiles) -> Steps[Result]:
    query = _query(request)
    yield
    return (yield from search(workspace, query))


def _query(request: m.SearchFiles) -> Query:
    name, pattern, fold = request.name, request.pattern, request.ignore_case
    if name is None and pattern is None:
        raise InvalidRequest("Nothing is looked for", hint="give a name, a pattern, or both")
    return Query(
        path=request.path,
        name=None if name is None else Ignore.named(name.lower() if fold else name),
        pattern=None if pattern is None else _pattern(request, pattern),
        fold=fold,
        usual=Ignore.of(_PASSED_OVER),
        ignored=request.ignored,
        most=request.max,
        told=Told(request.only_matching, request.lines_before, request.lines_after),
    )


def _pattern(request: m.SearchFiles, text: str) -> Any:
    if request.only_matching and (request.lines_before or request.lines_after):
        raise InvalidRequest("Parts of lines have no lines around them", hint="ask for one or the other")
    return compiled(text, fixed=request.fixed, ignore_case=request.ignore_case, word=request.word)


def _answer(request: m.SearchFiles, result: Result) -> m.FileSearchResult:
    return m.FileSearchResult(
        [m.FileMatch(*match) for match in result.matches],
        result.searched,
        result.searched_bytes,
        result.unread,
        result.truncated,
        id=request.id,
    )
