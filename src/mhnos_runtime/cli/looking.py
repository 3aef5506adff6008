"""What stands at paths of the workspace, asked over a blocking connection, and how it is changed. Knows no
verb."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

from mhnos_runtime.cli.names import shown

if TYPE_CHECKING:
    from mhnos_runtime.client.direct import Direct
    from mhnos_runtime.errors import MhnosError
    from mhnos_runtime.wire.messages import FileInfo, Message

    M = TypeVar("M", bound=Message)

#: For requests that may have to go through millions of files; the connection itself notices a dead server.
PATIENCE_S = 24 * 3600.0


def change(runtime: Direct, message: Message, answer: type[M], path: str) -> M:
    """Ask for a change, whose effect is seen at a path. Raises as Direct.ask; where no answer came, with how
    to find out whether it was made."""
    from mhnos_runtime.client.errors import ConnectionLost, RequestTimedOut

    try:
        return runtime.ask(message, answer, PATIENCE_S)
    except (ConnectionLost, RequestTimedOut) as error:
        hint = f"it may have been done: look with `mhnos-runtime ls -ld {shown(path)}`"
        raise type(error)(error.message, hint=hint) from error


def hint_of(error: MhnosError, path: str) -> str:
    """The next step; for a path that a shell would have expanded, how to find what is meant."""
    if error.code == "not-found" and not error.hint and any(char in path for char in "*?["):
        lists = f"mhnos-runtime grep --files --ignored --name {shown(path)}"
        return f"patterns are not expanded in the workspace; `{lists}` lists what is meant"
    return error.hint


def look(runtime: Direct, path: str, follow: bool = True) -> FileInfo:
    """What stands there. Raises RequestFailed."""
    from mhnos_runtime.wire import messages as m

    return runtime.ask(m.StatFile(path=path, follow=follow), m.FileStat).file


def found(runtime: Direct, path: str, follow: bool = True) -> FileInfo | None:
    """What stands there; None for nothing. Raises RequestFailed."""
    from mhnos_runtime.client.errors import RequestFailed

    try:
        return look(runtime, path, follow)
    except RequestFailed as error:
        if error.code != "not-found":
            raise
        return None


def listed(runtime: Direct, path: str) -> Iterator[FileInfo]:
    """What is in a directory, by name, page by page. Raises RequestFailed."""
    from mhnos_runtime import bounds
    from mhnos_runtime.wire import messages as m

    after: str | None = None
    while True:
        page = runtime.ask(m.ListFiles(path=path, after=after, max=bounds.LISTED_FILES), m.FileList)
        yield from page.files
        after = page.next
        if after is None:
            return


def destination(runtime: Direct, path: str, name: str) -> str:
    """Where something of this name goes that is put to `path`: into it, if it is a directory. Raises
    RequestFailed for a directory that is meant and not there."""
    from mhnos_runtime.client.errors import RequestFailed

    there = found(runtime, path)
    if there is not None and there.kind == "directory":
        return posixpath.join(path, name)
    if path.endswith("/"):
        why = "No such directory" if there is None else "Not a directory"
        hint = f"without the slash at its end it becomes the name: {path.rstrip('/') or '/'}"
        raise RequestFailed(f"{why}: {path}", code="not-found", hint=hint if there is None else "")
    return path
