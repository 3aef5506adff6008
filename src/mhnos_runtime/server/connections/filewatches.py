"""What one client has still to be told of the directories that it watches: one message for each, however slow
it reads. Knows changes and the message; not how changes are found."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from mhnos_runtime import bounds
from mhnos_runtime.errors import LimitReached, NotFound
from mhnos_runtime.files.changes import Changes
from mhnos_runtime.files.entries import text_of
from mhnos_runtime.wire import encode
from mhnos_runtime.wire import messages as m


class FileWatches:
    """later: have something called when it is this client's turn, see Turns. wake: called when there is
    something to be told."""

    def __init__(self, later: Callable[[Callable[[], None]], None], wake: Callable[[], None]) -> None:
        self._later = later
        self._wake = wake
        self._numbers = itertools.count(1)
        self._watches: dict[int, FileWatched] = {}
        self._waiting: dict[int, FileWatched] = {}
        self._scheduled = False

    def open(self) -> FileWatched:
        """One more, which tells nothing before its `begin`. Raises LimitReached."""
        if len(self._watches) >= bounds.WATCHES:
            raise LimitReached(
                f"A connection has at most {bounds.WATCHES} watches", hint="end one with unwatchFiles"
            )
        number = next(self._numbers)
        self._watches[number] = FileWatched(self, number)
        return self._watches[number]

    def find(self, number: int) -> FileWatched:
        """Raises NotFound."""
        watch = self._watches.get(number)
        if watch is None:
            raise NotFound(f"This connection has no watch {number}", code="unknown-watch")
        return watch

    def close(self) -> None:
        for watch in list(self._watches.values()):
            watch.close()

    # What FileWatched does

    def named_by_others(self, watch: FileWatched) -> int:
        """Changes that wait by name in other watches: the bound is the connection's."""
        return sum(len(each.changes.named) for each in self._watches.values() if each is not watch)

    def ready(self, watch: FileWatched) -> None:
        """It has something to be told."""
        self._waiting[watch.number] = watch
        if not self._scheduled:
            self._scheduled = True
            self._later(self._turn)

    def forget(self, watch: FileWatched) -> None:
        self._watches.pop(watch.number, None)
        self._waiting.pop(watch.number, None)

    def _turn(self) -> None:
        self._scheduled = False
        self._wake()

    # What Sender asks, see Events

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def next(self) -> bytes | None:
        """The next message for the client: all of one watch. None where there is nothing."""
        for number, watch in self._waiting.items():
            del self._waiting[number]
            return encode.encode(watch.message())
        return None


class FileWatched:
    """One watch of one client; see Listener. number: what the client calls it."""

    def __init__(self, watches: FileWatches, number: int) -> None:
        self.number = number
        self.changes = Changes()
        self._watches = watches
        self._begun = False
        self._ended: str | None = None
        self._closed = False
        self._leave: Callable[[], None] | None = None

    def entered(self, leave: Callable[[], None]) -> None:
        """leave: called once when the client is done with it, which may be the case already."""
        self._leave = leave
        if self._closed:
            self.close()

    def begin(self) -> None:
        """Tell what has happened since it was opened, and what happens from now on."""
        self._begun = True
        self._ready()

    def changed(self, changes: Changes) -> None:
        self.changes.merge(changes, bounds.NAMED_CHANGES - self._watches.named_by_others(self))
        self._ready()

    def ended(self, why: str) -> None:
        self._ended = why
        self._ready()

    def message(self) -> m.FilesChanged:
        """What waits; nothing does then."""
        changes, self.changes = self.changes, Changes()
        named = [
            m.FileChange(told, change.what, change.kind, change.version, opaque)
            for path, change in sorted(changes.named.items())
            for told, opaque in [_told(path)]
        ]
        if self._ended is not None:
            self.close()
        return m.FilesChanged(self.number, named, changes.rescan, self._ended)

    def close(self) -> None:
        """A second time changes nothing."""
        self._closed = True
        self._watches.forget(self)
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()

    def _ready(self) -> None:
        if self._begun and not self._closed and (self.changes or self._ended is not None):
            self._watches.ready(self)


def _told(path: str) -> tuple[str, bool]:
    """A path as clients are shown it, and whether no request can name it."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return text_of(path.encode(errors="surrogateescape")), True
    return path, False
