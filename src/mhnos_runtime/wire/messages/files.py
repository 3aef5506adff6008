"""Files of the workspace, one by one: listed, made, moved, removed, searched and watched. Their content goes
over HTTP.

Knows shapes and bounds; must not know what a server does with them.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from mhnos_runtime import bounds
from mhnos_runtime.wire.messages.base import Count, Message, Part, Path

FileKind: TypeAlias = Literal["file", "directory", "link", "other"]
Version: TypeAlias = Annotated[str, Meta(pattern="^[0-9a-f]{24}$")]
FileName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=bounds.FILE_NAME_CHARACTERS)]
IgnoreLine: TypeAlias = Annotated[str, Meta(max_length=bounds.PATTERN_CHARACTERS)]
#: No pattern: in a list it would be tried for each item before the list's length is known.
TrashId: TypeAlias = Annotated[str, Meta(min_length=16, max_length=16)]


class FileInfo(Part):
    """What stands at a path. `path`: from the top of the workspace. `kind`: "other" is a FIFO, a socket or a
    device. `size`: bytes, of a file. `mode`: permission bits. `mtime`: epoch ms. `version`: another one after
    every change. `target`: of a link, as it is written. `opaque`: its name is not UTF-8 and stands here with
    `\\xNN` in place of such bytes; no request can name it."""

    path: str
    kind: FileKind
    size: int
    mode: int
    mtime: int
    version: str
    target: str | None = None
    opaque: bool = False


class ListFiles(Message, tag="listFiles"):
    """What is in a directory, by name. `after`: go on behind this name. `max`: so many at most."""

    path: Path
    after: FileName | None = None
    max: Annotated[int, Meta(ge=1, le=bounds.LISTED_FILES)] = bounds.LISTED_FILES_USUAL


class FileList(Message, tag="fileList"):
    """`next`: ask again with this as `after`, there is more."""

    path: str
    files: list[FileInfo]
    next: str | None = None


class StatFile(Message, tag="statFile"):
    """`follow`: what a link leads to, not the link. `sha256`: read it all, too."""

    path: Path
    follow: bool = True
    sha256: bool = False


class FileStat(Message, tag="fileStat"):
    """`sha256`: hexadecimal; of exactly the version in `file`."""

    file: FileInfo
    sha256: str | None = None


class MakeDirectory(Message, tag="makeDirectory"):
    """`parents`: make those that are missing, too; then it is no error if it is there already."""

    path: Path
    parents: bool = False


class DirectoryMade(Message, tag="directoryMade"):
    file: FileInfo


class MoveFile(Message, tag="moveFile"):
    """Give a file, link or directory another path. `replace`: what stands there goes to the trash. `version`:
    only if `from` has it."""

    from_: Path = msgspec.field(name="from")
    to: Path
    replace: bool = False
    version: Version | None = None


class FileMoved(Message, tag="fileMoved"):
    """`trash`: under this id what stood there can be had back."""

    file: FileInfo
    trash: str | None = None


class CopyFile(Message, tag="copyFile"):
    """Copy a file, a link, or a directory with what is in it. `replace`: as for moveFile."""

    from_: Path = msgspec.field(name="from")
    to: Path
    replace: bool = False


class FileCopied(Message, tag="fileCopied"):
    """`copied`: files and directories. `bytes`: of all files. `skipped`: (path, why) of what could not be
    copied, up to 100; `skipped_count`: all of them. `trash`: as for fileMoved."""

    file: FileInfo
    copied: int
    bytes: int
    skipped: list[tuple[str, str]] = msgspec.field(default_factory=list)
    skipped_count: int = 0
    trash: str | None = None


class RemoveFile(Message, tag="removeFile"):
    """Put a file, link or directory into the trash. `recursive`: also a directory that has something in it.
    `outright`: not into the trash. `version`: only if it has it."""

    path: Path
    recursive: bool = False
    outright: bool = False
    version: Version | None = None


class FileRemoved(Message, tag="fileRemoved"):
    """`trash`: under this id it can be had back; none where it is gone."""

    path: str
    trash: str | None = None


class TrashItem(Part):
    """`path`: where it was. `removed`, `expires`: epoch ms. `size`: bytes, of a file."""

    id: str
    path: str
    kind: FileKind
    size: int
    removed: int
    expires: int


class ListTrash(Message, tag="listTrash"):
    """What can be had back, the latest first. `before`: go on with what was removed before this item."""

    before: TrashId | None = None
    max: Annotated[int, Meta(ge=1, le=bounds.LISTED_FILES)] = bounds.LISTED_FILES_USUAL


class TrashList(Message, tag="trashList"):
    """`next`: ask again with this as `before`, there is more."""

    items: list[TrashItem]
    next: str | None = None


class RestoreFile(Message, tag="restoreFile"):
    """`item`: of the trash. `to`: another path than the one where it was. Nothing may stand there."""

    item: TrashId
    to: Path | None = None


class FileRestored(Message, tag="fileRestored"):
    file: FileInfo


class EmptyTrash(Message, tag="emptyTrash"):
    """Remove for ever. `items`: only these."""

    items: Annotated[list[TrashId], Meta(max_length=bounds.LISTED_FILES)] | None = None


class TrashEmptied(Message, tag="trashEmptied"):
    items: int


class SearchFiles(Message, tag="searchFiles"):
    """Find files by name, by content, or by both, below a directory; or lines of the one file at `path`.

    `name`: a glob as in .gitignore, such as `*.py` or `src/**/test_*`. `pattern`: lines that match it, in
    RE2's syntax; `fixed`: it is a text; `word`: it matches whole words only. `only_matching`: each part that
    matches, and not its line. `lines_before`, `lines_after`: so many lines around each line that matches go
    along. `ignored`: look also at what .gitignore files name. `max`: so many matches at most.
    """

    path: Path = "/"
    name: Annotated[str, Meta(min_length=1, max_length=bounds.PATTERN_CHARACTERS)] | None = None
    pattern: Annotated[str, Meta(min_length=1, max_length=bounds.PATTERN_CHARACTERS)] | None = None
    fixed: bool = False
    word: bool = False
    ignore_case: bool = False
    only_matching: bool = False
    lines_before: Annotated[int, Meta(ge=0, le=bounds.LINES_AROUND)] = 0
    lines_after: Annotated[int, Meta(ge=0, le=bounds.LINES_AROUND)] = 0
    ignored: bool = False
    max: Annotated[int, Meta(ge=1, le=bounds.MATCHES)] = bounds.MATCHES_USUAL


class FileMatch(Part):
    """A file, or a line of one. `line`: its number, from 1. `column`: bytes before what matched, of UTF-8;
    none of a line that only stands around one that matches. `text`: the line without its end, or the part
    that matches; a long one is cut around what matched, with "…"."""

    path: str
    kind: FileKind
    line: int | None = None
    column: int | None = None
    text: str | None = None


class FileSearchResult(Message, tag="fileSearchResult"):
    """`matches`: by path and line. `truncated`: there may be more. `searched`: files that were looked at;
    `searched_bytes`: of their content. `unread`: files that could not be read, or were binary or too
    large."""

    matches: list[FileMatch]
    searched: int
    searched_bytes: int = 0
    unread: int = 0
    truncated: bool = False


class WatchFiles(Message, tag="watchFiles"):
    """Be told of what changes below a directory, from the answer on. `ignore`: lines as in .gitignore; none:
    the usual ones (dependencies, version control, caches)."""

    path: Path = "/"
    ignore: Annotated[list[IgnoreLine], Meta(max_length=bounds.IGNORE_LINES)] | None = None


class FilesWatched(Message, tag="filesWatched"):
    """`watch`: names it, on this connection. `by`: how changes are found at the moment; by polling it takes
    some seconds."""

    watch: int
    path: str
    by: Literal["inotify", "polling"]


class UnwatchFiles(Message, tag="unwatchFiles"):
    watch: Count


class FilesUnwatched(Message, tag="filesUnwatched"):
    watch: int


class FileChange(Part):
    """`what`: what became of the path since it was told of last; several changes are one, which replaces all
    that was known of the path and of what is below it. `version`: that it has now; none of a directory, nor
    of what was removed. A file that was moved is removed here and created there. `opaque`: as in FileInfo."""

    path: str
    what: Literal["created", "changed", "removed"]
    kind: FileKind
    version: str | None = None
    opaque: bool = False


class FilesChanged(Message, tag="filesChanged"):
    """An event of a watch. `changes`: by path. `rescan`: there were too many to name; list what is below the
    watched directory again. `ended`: why this watch tells nothing any more, as when its directory is gone."""

    watch: int
    changes: list[FileChange] = msgspec.field(default_factory=list)
    rescan: bool = False
    ended: str | None = None
