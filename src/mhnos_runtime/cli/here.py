"""A file of the workspace as a file of this machine: whole or not at all, and gone on with after an
interruption. Knows one file; not what stands around it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from typing import TYPE_CHECKING, BinaryIO

from mhnos_runtime.cli.unfinished import drop_other_parts, part_path
from mhnos_runtime.client.errors import Conflict
from mhnos_runtime.client.tar_stream import settle
from mhnos_runtime.errors import NotFound, Unavailable

if TYPE_CHECKING:
    from mhnos_runtime.cli.copies import Step
    from mhnos_runtime.cli.progress import Progress
    from mhnos_runtime.client.contents import Contents
    from mhnos_runtime.wire.messages import FileInfo

#: A smaller part is not worth to be kept.
KEPT_BYTES = 16 * 1024 * 1024


def download(contents: Contents, url: str, step: Step, progress: Progress) -> None:
    """Raises MhnosError, OSError. A link is followed, as cp does; into a device or a FIFO it is written as it
    comes."""
    assert step.file is not None  # noqa: S101 - the source is in the workspace
    if _is_special(step.to.path):
        with open(step.to.path, "wb") as sink:
            contents.download(step.source.path, sink, progress=progress.at)
        return
    target = os.path.realpath(step.to.path)
    _require_place(target)
    part = part_path(url, step.source.path, step.file.version, target)
    drop_other_parts(part)
    with _opened(part, target) as sink:
        try:
            got = _fetch(contents, step, sink, progress)
            settle(sink, got.mode, got.mtime / 1000)
            os.rename(part, target)
        except KeyboardInterrupt:
            _put_away(part, progress)
            raise
        except BaseException:
            _put_away(part)
            raise


def _opened(part: str, target: str) -> BinaryIO:
    """Raises Unavailable where another command is writing it."""
    fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    sink = open(fd, "r+b")  # noqa: SIM115 - the caller's
    try:
        fcntl.flock(sink, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sink.close()
        raise Unavailable(f"{target} is being copied by another command", hint="wait for its end") from None
    return sink


def _fetch(contents: Contents, step: Step, sink: BinaryIO, progress: Progress) -> FileInfo:
    """From the end of what is there already, if it is of this version; else whatever stands there by now, as
    of a log that grows with each look."""
    assert step.file is not None  # noqa: S101
    start = sink.seek(0, os.SEEK_END)
    if 0 < start < step.file.size:
        progress.begin_at(start)
        with contextlib.suppress(Conflict):
            return contents.download(
                step.source.path, sink, start=start, version=step.file.version, progress=progress.at
            )
    sink.truncate(0)
    sink.seek(0)
    progress.begin_at(0)
    return contents.download(step.source.path, sink, progress=progress.at)


def _put_away(part: str, progress: Progress | None = None) -> None:
    """progress: the part may be kept, if it is large."""
    with contextlib.suppress(OSError):
        if progress is not None and os.stat(part).st_size >= KEPT_BYTES:
            progress.interrupted()
        else:
            os.unlink(part)


def _is_special(target: str) -> bool:
    try:
        return not stat.S_ISREG(os.stat(target).st_mode)
    except FileNotFoundError:
        return False


def _require_place(target: str) -> None:
    """Raises NotFound without its directory; PermissionError, since a rename alone would replace a read-only
    file."""
    if not os.path.isdir(folder := os.path.dirname(target)):
        raise NotFound(f"No such directory: {folder}", hint="`mkdir -p` makes it")
    if os.path.exists(target):
        os.close(os.open(target, os.O_WRONLY | os.O_CLOEXEC))
