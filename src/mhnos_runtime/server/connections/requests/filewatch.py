"""Requests to watch files, and to watch them no more. Knows who asks and what for; not how
changes are found."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.ignore import USUAL
from mhnos_runtime.files.paths import normalise
from mhnos_runtime.process.kinds import CACHES
from mhnos_runtime.server.auth.grants import Scope
from mhnos_runtime.server.connections.connection import Connection
from mhnos_runtime.server.connections.filewatches import FileWatched
from mhnos_runtime.server.connections.requests.table import Row, Rows
from mhnos_runtime.server.files.reach import reach
from mhnos_runtime.server.files.watching import Key, Watchers
from mhnos_runtime.wire import messages as m


class FileWatchRequests:
    """Handlers that begin and end one connection's watches of files."""

    def __init__(self, workspace: Workspace, watchers: Watchers) -> None:
        self._workspace = workspace
        self._watchers = watchers

    def rows(self) -> Rows:
        return {
            m.WatchFiles: Row(Scope.FILES, self.watch),
            m.UnwatchFiles: Row(Scope.FILES, self.unwatch),
        }

    def watch(self, connection: Connection, request: m.WatchFiles) -> None:
        """It is answered once everything below is known; nothing is told before the answer."""
        key = self._key(connection, request)
        watch = connection.files.open()
        connection.later_in_turn(self._begin(connection, request, key, watch), request)

    def _key(self, connection: Connection, request: m.WatchFiles) -> Key:
        path = normalise(request.path)
        lines = (*USUAL, *_below(path)) if request.ignore is None else tuple(request.ignore)
        return Key(connection.grant.paths, path, lines)

    async def _begin(
        self, connection: Connection, request: m.WatchFiles, key: Key, watch: FileWatched
    ) -> Callable[[], m.Message]:
        workspace = reach(self._workspace, connection.grant)
        try:
            watcher = await self._watchers.enter(workspace, key, watch)
        except BaseException:
            watch.close()
            raise
        watch.entered(lambda: self._watchers.leave(watcher, watch))

        def begin() -> m.FilesWatched:
            watch.begin()
            return m.FilesWatched(watch.number, watcher.path, watcher.by, id=request.id)

        return begin

    def unwatch(self, connection: Connection, request: m.UnwatchFiles) -> m.FilesUnwatched:
        """Nothing is told after the answer."""
        connection.files.find(request.watch).close()
        return m.FilesUnwatched(request.watch, id=request.id)


def _below(path: str) -> Iterator[str]:
    """Rules for the kinds' caches, from this directory."""
    top = path.rstrip("/") + "/"
    return (f"/{cache.removeprefix(top)}/" for cache in CACHES if cache.startswith(top))
