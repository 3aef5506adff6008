"""What became of paths since somebody was told last: one change for each path, and a bound. Knows values
only."""

from __future__ import annotations

from collections.abc import Container
from typing import Literal, NamedTuple

from mhnos_runtime import bounds
from mhnos_runtime.files.entries import Kind

What = Literal["created", "changed", "removed"]

#: Of all paths that are named at the same time: a message of this size costs the event loop some ms.
NAMED_BYTES = 256 * 1024

#: (what was to be told, what comes on top of it): what is told. All else is what comes on top. A file that
#: came and went is told as removed, since somebody may have listed it meanwhile.
_BOTH: dict[tuple[What, What], What] = {
    ("removed", "created"): "changed",
    ("changed", "created"): "changed",
    ("created", "changed"): "created",
}


class Change(NamedTuple):
    """kind: what stands there now, or stood there. version: of a file, link or other that is there."""

    what: What
    kind: Kind
    version: str | None = None


class Changes:
    """Changes by path. Each replaces all that is known of its path and of what is below it: a directory is
    told as created before what is in it, and as removed without that. rescan: there were too many to name,
    or nobody knows which."""

    __slots__ = ("_bytes", "named", "rescan")

    def __init__(self) -> None:
        self.named: dict[str, Change] = {}
        self.rescan = False
        self._bytes = 0

    def __bool__(self) -> bool:
        return self.rescan or bool(self.named)

    def add(self, path: str, change: Change, most: int = bounds.NAMED_CHANGES) -> None:
        """path: canonical. most: so many are named."""
        if change.kind == "directory":
            self._drop_below({path})
        self._put(path, change, most)

    def merge(self, later: Changes, most: int = bounds.NAMED_CHANGES) -> None:
        """Add what came later."""
        if self.rescan or later.rescan:
            self.look_again()
            return
        self._drop_below(later.named.keys())
        for path, change in later.named.items():
            self._put(path, change, most)

    def look_again(self) -> None:
        """Name nothing any more."""
        self.named.clear()
        self.rescan, self._bytes = True, 0

    def _put(self, path: str, change: Change, most: int) -> None:
        if self.rescan:
            return
        old = self.named.get(path)
        if old is None:
            self._bytes += len(path)
        elif change.kind != "directory":
            change = change._replace(what=_BOTH.get((old.what, change.what), change.what))
        self.named[path] = change
        if len(self.named) > most or self._bytes > NAMED_BYTES:
            self.look_again()

    def _drop_below(self, tops: Container[str]) -> None:
        for path in [each for each in self.named if _is_below(each, tops)]:
            del self.named[path]
            self._bytes -= len(path)


def _is_below(path: str, tops: Container[str]) -> bool:
    while (end := path.rfind("/")) > 0:
        path = path[:end]
        if path in tops:
            return True
    return False
