"""Finds files below a directory, by name and by content, and lines of one file. Knows the workspace
and rules of what to pass over; no messages, and not who asks.

The tree is hostile: it may be deep, wide, full of links, and change meanwhile. What is held of it is bounded.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from mhnos_runtime.errors import LimitReached, MhnosError
from mhnos_runtime.files.confine import Workspace, enter, open_regular, reopen
from mhnos_runtime.files.entries import Kind
from mhnos_runtime.files.ignore import MAX_BYTES, Ignore
from mhnos_runtime.files.lines import BYTE_ORDER_MARK, LINES, FileLines, FoundLine, Told
from mhnos_runtime.files.paths import ALIAS, MAX_PATH_BYTES, PARTIAL_PREFIX, explain, parts, spell
from mhnos_runtime.files.steps import Steps

MAX_SECONDS = 5.0
"""How long one search may take: no longer than a person waits."""

MAX_ANSWER_BYTES = 1 << 20
"""All matches as JSON: what may wait for a client that does not read."""

MAX_FILE_BYTES = 64 << 20
"""Of a file whose content is searched. A larger one is data."""

BLOCK_BYTES = 64 * 1024
"""Read and searched in one step, which the worst pattern makes half a second of a thread."""

MAX_WAITING_BYTES = 16 << 20
"""Of directories that have been seen and not yet entered: some 100,000."""

BATCH_ENTRIES = 1000
"""Of a directory that are looked at in the order of their names: some ms of listing. Most have fewer."""

MAX_RULE_BYTES = 2 * MAX_BYTES
"""Of all .gitignore files that are in force for a directory, by their length; deeper ones are not read."""

MAX_RULES_SIZE = 64 * 1024
"""The same for what RE2 matches of them, see Ignore.size: 8 MiB of memory."""

_RULES = ".gitignore"
_ALIAS = ALIAS.decode()
_ALIAS_LENGTH = len(_ALIAS) + 1
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: What a waiting directory takes beside its path.
_WAITING_COST = 150
_MATCH_COST = 80


class Match(NamedTuple):
    """A file, or a line of it that matches, or stands around one that does; see FileMatch."""

    path: str
    kind: Kind
    line: int | None = None
    column: int | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for below `path`. name: one glob, of paths from there. pattern: as patterns.compiled
    gives it. fold: names in lower case, as the glob has to be. usual: passed over, as rules from the top of
    the workspace. ignored: look also at what those, and .gitignore files, name. told: of a file's lines."""

    path: str
    name: Ignore | None
    pattern: Any | None
    fold: bool
    usual: Ignore
    ignored: bool
    most: int
    told: Told = LINES


@dataclass(slots=True)
class Result:
    """matches: by path and line. searched: files and, by name alone, all else that was looked at. unread:
    what could not be looked at, though it might have matched. truncated: there may be more."""

    matches: list[Match] = field(default_factory=list)
    searched: int = 0
    searched_bytes: int = 0
    unread: int = 0
    truncated: bool = False


class _Scope(NamedTuple):
    """Rules, and how much of a path leads to their folder."""

    skip: int
    rules: Ignore


class _Folder(NamedTuple):
    """A directory to be entered. path: from the top of the workspace, "" for that itself. scopes: the rules
    that are in force in it, outermost first; rule_bytes: of their files."""

    path: str
    scopes: tuple[_Scope, ...]
    rule_bytes: int

    @property
    def prefix(self) -> str:
        return f"{self.path}/" if self.path else ""


def search(workspace: Workspace, query: Query) -> Steps[Result]:
    """A file that the path names is searched alone, whatever rules say of it. Raises what Workspace.open_dir
    does for the path, and LimitReached (unavailable) where descriptors or memory run out."""
    top, is_file = _opened(workspace, query.path)
    try:
        going = _Search(workspace, query, top)
        return (yield from (going.alone() if is_file else going.run()))
    finally:
        os.close(top)


def _opened(workspace: Workspace, path: str) -> tuple[int, bool]:
    """A descriptor of the directory, or of the regular file."""
    with workspace.resolve(path) as resolved:
        if stat.S_ISREG(resolved.mode):
            return reopen(resolved, os.O_RDONLY), True
    return workspace.open_dir(path), False


class _Search:
    """One search: depth first, each directory entered by names from the first one, through no link. At most
    five descriptors are open. What cannot be read is counted, and the others go on."""

    def __init__(self, workspace: Workspace, query: Query, top: int) -> None:
        self._workspace, self._query, self._top = workspace, query, top
        self._result = Result()
        self._names = parts(query.path)
        self._prefix = "".join(f"{os.fsdecode(name)}/" for name in self._names)
        self._left_bytes, self._left_matches = MAX_ANSWER_BYTES, query.most
        self._waiting: list[_Folder] = []
        self._waiting_bytes = 0
        self._missed = False
        self._until = time.monotonic() + MAX_SECONDS

    def run(self) -> Steps[Result]:
        first = yield from self._first()
        self._waiting.append(first)
        self._waiting_bytes = _waiting_cost(first)
        while self._waiting and not self._is_full():
            folder = self._waiting.pop()
            self._waiting_bytes -= _waiting_cost(folder)
            try:
                yield from self._folder(folder)
            except OSError as error:
                self._count_unread(error)
            yield
        self._result.matches.sort(key=lambda match: (match.path, match.line or 0))
        self._result.truncated |= self._missed
        return self._result

    def alone(self) -> Steps[Result]:
        """The file at the path, which `top` is."""
        path, name = self._prefix[:-1], os.fsdecode(self._names[-1])
        if not self._is_named(name, is_directory=False):
            return self._result
        if self._query.pattern is None:
            self._result.searched = 1
            self._add(Match(_shown(path), "file"))
            return self._result
        try:
            yield from self._content(path, self._top)
        except OSError as error:
            self._count_unread(error)
        return self._result

    def _is_full(self) -> bool:
        result = self._result
        if self._left_matches <= 0 or self._left_bytes <= 0 or time.monotonic() >= self._until:
            result.truncated = True
        return result.truncated

    def _count_unread(self, error: OSError) -> None:
        told = explain(error, "")
        if isinstance(told, LimitReached):
            raise told from error
        # What is gone could not have matched.
        self._result.unread += error.errno != errno.ENOENT

    # Directories

    def _first(self) -> Steps[_Folder]:
        """With the rules of the directories above it, so far as they may be read."""
        folder = _Folder("", (), 0)
        for count, name in enumerate(self._names):
            if self._is_full():
                break
            yield
            with suppress(MhnosError, OSError):
                fd = self._workspace.open_dir(spell(self._names[:count]))
                try:
                    folder = self._with_rules(folder, fd)
                finally:
                    os.close(fd)
            folder = folder._replace(path=folder.prefix + os.fsdecode(name))
        return folder

    def _folder(self, folder: _Folder) -> Steps[None]:
        fd, first = self._open(folder), len(self._waiting)
        try:
            folder = self._with_rules(folder, fd)
            with os.scandir(fd) as entries:
                while batch := sorted(islice(entries, BATCH_ENTRIES), key=lambda entry: entry.name):
                    yield from self._entries(folder, batch, fd)
                    if self._is_full():
                        return
        finally:
            os.close(fd)
            # The last one is entered next.
            self._waiting[first:] = sorted(self._waiting[first:], reverse=True, key=lambda each: each.path)

    def _open(self, folder: _Folder) -> int:
        names = [os.fsencode(name) for name in folder.path.split("/") if name][len(self._names) :]
        above = enter(self._top, names[:-1])
        try:
            return os.open(names[-1] if names else b".", _FOLDER_FLAGS, dir_fd=above)
        finally:
            os.close(above)

    def _with_rules(self, folder: _Folder, fd: int) -> _Folder:
        """The same with the rules of its own file, if it has one and there is room for them."""
        if self._query.ignored or folder.rule_bytes >= MAX_RULE_BYTES:
            return folder
        try:
            file = open_regular(_RULES, fd)
        except OSError:
            return folder
        with os.fdopen(file, "rb", buffering=0) as opened:
            data = opened.read(MAX_BYTES) or b""
        if len(data) == MAX_BYTES:
            data = data[: data.rfind(b"\n") + 1]  # half a line would mean something else
        made = Ignore.of(data.removeprefix(BYTE_ORDER_MARK).decode("utf-8", "surrogateescape").split("\n"))
        size = made.size + sum(scope.rules.size for scope in folder.scopes)
        if not made or size > MAX_RULES_SIZE:
            return folder
        scope = _Scope(len(folder.prefix), made)
        return _Folder(folder.path, (*folder.scopes, scope), folder.rule_bytes + len(data))

    # What is in them

    def _entries(self, folder: _Folder, batch: list[os.DirEntry[str]], fd: int) -> Steps[None]:
        for entry in batch:
            if self._is_full():
                return
            yield
            kind, path = _kind(entry), folder.prefix + entry.name
            if self._passes_over(folder, entry.name, path, kind == "directory"):
                continue
            if not _can_be_named(path):
                self._result.unread += 1
                continue
            if kind == "directory":
                self._wait(folder, path)
            if self._query.pattern is None:
                self._result.searched += 1
                if self._has_name(path, kind):
                    self._add(Match(_shown(path), kind))
            elif kind == "file" and self._has_name(path, kind):
                try:
                    file = open_regular(entry.name, fd)
                    try:
                        yield from self._content(path, file)
                    finally:
                        os.close(file)
                except OSError as error:
                    self._count_unread(error)

    def _passes_over(self, folder: _Folder, name: str, path: str, is_directory: bool) -> bool:
        if name.startswith(PARTIAL_PREFIX):
            return True
        if self._query.ignored:
            return False
        if self._query.usual.says(path, is_directory):
            return True
        for scope in reversed(folder.scopes):
            said = scope.rules.says(path[scope.skip :], is_directory)
            if said is not None:
                return said
        return False

    def _has_name(self, path: str, kind: Kind) -> bool:
        return self._is_named(path[len(self._prefix) :], kind == "directory")

    def _is_named(self, below: str, is_directory: bool) -> bool:
        if self._query.name is None:
            return True
        return bool(self._query.name.says(below.lower() if self._query.fold else below, is_directory))

    def _wait(self, folder: _Folder, path: str) -> None:
        found = folder._replace(path=path)
        if self._waiting_bytes + _waiting_cost(found) > MAX_WAITING_BYTES:
            self._missed = True
            return
        self._waiting_bytes += _waiting_cost(found)
        self._waiting.append(found)

    def _content(self, path: str, file: int) -> Steps[None]:
        left = os.fstat(file).st_size
        block = os.read(file, min(BLOCK_BYTES, left))
        if left > MAX_FILE_BYTES or b"\0" in block:
            self._result.unread += 1
            return
        self._result.searched += 1
        yield from self._lines(_shown(path), file, block, left)

    def _lines(self, path: str, file: int, block: bytes, left: int) -> Steps[None]:
        lines = FileLines(self._query.pattern, self._query.told)
        while block:
            self._result.searched_bytes += len(block)
            yield from self._take(path, lines.feed(block))
            if self._is_full():
                return
            left -= len(block)
            block = os.read(file, min(BLOCK_BYTES, left)) if left else b""
        yield from self._take(path, lines.end())

    def _take(self, path: str, lines: Iterable[FoundLine | None]) -> Steps[None]:
        for line in lines:
            if line is not None:
                self._add(Match(path, "file", *line))
            if self._is_full():
                return
            yield
        yield

    def _add(self, match: Match) -> None:
        self._left_bytes -= _MATCH_COST + _json_bytes(match.path) + _json_bytes(match.text or "")
        if self._left_bytes >= 0:
            self._result.matches.append(match)
            self._left_matches -= match.line is None or match.column is not None


def _kind(entry: os.DirEntry[str]) -> Kind:
    if entry.is_file(follow_symlinks=False):
        return "file"
    if entry.is_dir(follow_symlinks=False):
        return "directory"
    return "link" if entry.is_symlink() else "other"


def _can_be_named(path: str) -> bool:
    """By a request: it is UTF-8, and not too long."""
    if path.isascii():
        return len(path) < MAX_PATH_BYTES - _ALIAS_LENGTH
    try:
        return len(path.encode()) < MAX_PATH_BYTES - _ALIAS_LENGTH
    except UnicodeEncodeError:
        return False


def _shown(path: str) -> str:
    """In canonical form, see paths.normalise."""
    first = path.partition("/")[0]
    return f"/{_ALIAS}/{path}" if first == _ALIAS else f"/{path}"


def _waiting_cost(folder: _Folder) -> int:
    return _WAITING_COST + len(folder.path)


def _json_bytes(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False).encode("utf-8", "replace"))
