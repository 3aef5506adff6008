"""A watch as a server drives it, without an event loop, and a client that lists once and then only applies
what it is told. Knows the rules of docs/protocol.md, and how to look at the truth."""

from __future__ import annotations

import os
import select
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from mhnos_runtime.errors import MhnosError
from mhnos_runtime.files.changes import Changes
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.entries import kind_of
from mhnos_runtime.files.inotify import Inotify
from mhnos_runtime.files.version import version_of
from mhnos_runtime.files.watch import FileWatch
from mhnos_runtime.files.watchtable import Budget

#: What is known of a path: kind, and version of all but directories.
View = dict[str, tuple[str, str | None]]
PATIENCE_SECONDS = 20.0


def walked(top: Path) -> View:
    """Raises FileNotFoundError or NotADirectoryError where others change it meanwhile."""
    found: View = {}
    for folder, directories, files in os.walk(top):
        for name in [*directories, *files]:
            status = os.stat(Path(folder, name), follow_symlinks=False)
            version = None if stat.S_ISDIR(status.st_mode) else version_of(status)
            found["/" + os.path.relpath(Path(folder, name), top)] = kind_of(status.st_mode), version
    return found


class Watched:
    """A begun watch, and the view of a client of it. list_again: what a client does when it is told to."""

    def __init__(
        self, workspace: Workspace, path: str = "/", ignore: Sequence[str] = (), budget: Budget | None = None
    ) -> None:
        self.budget = budget or Budget()
        self.watch = FileWatch(workspace, path, ignore, self.budget)
        self.top = Path(workspace.root)
        self.view: View = {}
        self.rescans = 0
        try:
            run(self.watch.begin())
        except MhnosError:
            self.watch.close()
            raise
        self.list_again()
        self._settled()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.watch.close()

    def list_again(self) -> None:
        self.view = truth(self.top)

    def news(self) -> Changes:
        """What the kernel's news that are there by now have led to, settled."""
        run(self.watch.take())
        return self._settled()

    def scanned(self) -> Changes:
        run(self.watch.scan())
        return self._settled()

    def until(self, path: str, what: str) -> Changes:
        """News up to one of a path."""
        end, found = time.monotonic() + PATIENCE_SECONDS, Changes()
        while path not in found.named or found.named[path].what != what:
            assert time.monotonic() < end, found.named
            select.select([self.watch], [], [], PATIENCE_SECONDS)
            found.merge(self.news())
        return found

    def _settled(self) -> Changes:
        end = time.monotonic() + PATIENCE_SECONDS
        while self.watch.young:
            time.sleep(0.002)
            assert time.monotonic() < end
            run(self.watch.settle())
        changes = self.watch.taken()
        self._apply(changes)
        return changes

    def _apply(self, changes: Changes) -> None:
        if changes.rescan:
            self.rescans += 1
            self.list_again()
        for path, change in sorted(changes.named.items()):
            below = path + "/"
            for known in [each for each in self.view if each == path or each.startswith(below)]:
                del self.view[known]
            if change.what != "removed":
                self.view[path] = change.kind, change.version


def truth(top: Path) -> View:
    """What is below a folder, links not entered. Names that are not UTF-8 are in it with surrogates."""
    while True:
        try:
            return walked(top)
        except (FileNotFoundError, NotADirectoryError):
            pass


def run(steps: Iterator[None]) -> None:
    for _ in steps:
        pass


def named(changes: Changes) -> dict[str, str]:
    """What became of each path."""
    assert not changes.rescan
    return {path: change.what for path, change in changes.named.items()}


def found(watched: Watched) -> dict[str, str]:
    """What is told of what has happened, however it is found."""
    return named(watched.scanned() if watched.watch.by == "polling" else watched.news())


def failing(number: int, after: int = 0) -> object:
    """A method that fails, from the call number `after` on."""
    real, calls = Inotify.add, [0]

    def fail(*arguments: object) -> object:
        calls[0] += 1
        if calls[0] > after:
            raise OSError(number, os.strerror(number))
        return real(*arguments)  # type: ignore[arg-type]

    return fail
