"""What a server that was killed has left under partial names, removed by its notes. Removes nothing that no
note names, or that is not what the note says, and follows no link.

Knows notes and the workspace; not when this is done.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress

from mhnos_runtime.errors import MhnosError
from mhnos_runtime.files.confine import Workspace, enter
from mhnos_runtime.files.descent import remove_tree, scan
from mhnos_runtime.files.partials import Left, Leftovers, Partials, identity_of
from mhnos_runtime.files.paths import PARTIAL_PREFIX, spell
from mhnos_runtime.files.rename import rename_back
from mhnos_runtime.files.steps import Steps

_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Clearing:
    """tell: called once with what cannot be removed, and why; it is tried again by each sweep."""

    def __init__(self, partials: Partials, workspace: Workspace, tell: Callable[[str], None]) -> None:
        self._partials, self._workspace, self._tell = partials, workspace, tell
        self._told = set[bytes]()

    def sweep(self) -> Steps[None]:
        for leftovers in self._partials.left():
            with leftovers:
                yield from self._clear(leftovers)

    def _clear(self, leftovers: Leftovers) -> Steps[None]:
        done = True
        for left in leftovers:
            if left is not None:
                done &= yield from self._remove(left)
            yield
        if done:
            with suppress(OSError):
                leftovers.remove()

    def _remove(self, left: Left) -> Steps[bool]:
        """Whether nothing is left to do."""
        path = spell([*left.place.folder.split(b"/"), left.place.name])
        try:
            with self._workspace.resolve("/") as top, suppress(FileNotFoundError, NotADirectoryError):
                folder = enter(top.fd, _names(left))
                try:
                    yield from _settle(left, folder, path)
                finally:
                    os.close(folder)
        except MhnosError as error:
            if left.place.name not in self._told:
                self._told.add(left.place.name)
                self._tell(error.message)
            return False
        return True


def _names(left: Left) -> list[bytes]:
    """Raises NotADirectoryError for a note that is none of ours."""
    names = [name for name in left.place.folder.split(b"/") if name]
    plain = left.place.name.startswith(PARTIAL_PREFIX.encode()) and b"/" not in left.place.name
    if not plain or b"/" in left.place.target or {b".", b".."} & {*names, left.place.target}:
        raise NotADirectoryError
    return names


def _settle(left: Left, folder: int, path: str) -> Steps[None]:
    place = left.place
    look = os.open(place.name, _LOOK, dir_fd=folder)
    try:
        status = os.fstat(look)
        stood = place.stood == identity_of(status)
        if stood and place.target:
            rename_back(place.name, place.target, folder, folder)
        elif stood or left.made == identity_of(status) or _is_empty(look, status):
            yield from remove_tree(folder, place.name, path, expected=status, force=True)
    finally:
        os.close(look)


def _is_empty(look: int, status: os.stat_result) -> bool:
    """As it is for a moment, before it is noted what was made. Nobody loses anything with it."""
    if stat.S_ISDIR(status.st_mode):
        return next(scan(look), None) is None
    return stat.S_ISREG(status.st_mode) and not status.st_size
