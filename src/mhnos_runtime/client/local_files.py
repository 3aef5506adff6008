"""Files and directories of this machine, to and from the workspace. Blocks; must not know an event loop."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Sequence

from mhnos_runtime.client.contents import Contents
from mhnos_runtime.client.file_routes import names
from mhnos_runtime.client.tar_stream import (
    Excludes,
    Transferred,
    beside,
    draft_of,
    nothing,
    pack,
    settle,
    unpack,
)
from mhnos_runtime.wire import messages as m

Progress = Callable[[int], object]


def download(contents: Contents, path: str, local: str, progress: Progress = int) -> m.FileInfo:
    """Bring a file to this machine, with its permission bits and its time; what stands at `local` is replaced
    when all of it is there. Raises as Contents.download does, and OSError."""
    with beside(_named(local, path)) as file:
        found = contents.download(path, file, progress=progress)
        settle(file, found.mode, found.mtime / 1000)
    return found


def upload(
    contents: Contents,
    local: str,
    path: str,
    *,
    version: str | None = None,
    absent: bool = False,
    progress: Progress = int,
    resume: str | None = None,
    begun: Callable[[str], object] = str,
) -> m.FileInfo:
    """Bring a file of this machine into the workspace, see Contents.upload. Raises also OSError."""
    # Not waited for: a FIFO is opened when somebody writes to it.
    with open(os.open(local, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "Not a file that can be read twice", local)
        return contents.upload(
            path,
            file,
            size=status.st_size,
            version=version,
            absent=absent,
            mode=stat.S_IMODE(status.st_mode),
            mtime_ms=status.st_mtime_ns // 1_000_000,
            progress=progress,
            resume=resume,
            begun=begun,
        )


def download_directory(
    contents: Contents, path: str, local: str, progress: Progress = int, exclude: Sequence[str] = ()
) -> Transferred:
    """Bring a directory with all that is in it to this machine. One that is not there yet appears when all of
    it has come; into another one, files are brought one by one. exclude: as for Contents.read_archive. Raises
    as that does, and OSError."""
    local = os.path.abspath(local)
    with contents.read_archive(path, exclude) as archive:
        if os.path.isdir(local):
            return unpack(archive, local, progress)
        draft = draft_of(local)
        os.mkdir(draft)
        try:
            done = unpack(archive, draft, progress)
            os.rename(draft, local)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        return done


def upload_directory(
    contents: Contents, local: str, path: str, progress: Progress = int, excludes: Excludes = nothing
) -> Transferred:
    """Bring a directory of this machine with all that is in it, see pack, into the workspace, where it is
    added to one that is there. Raises as Contents.write_archive; OSError, SourceChanged: a part is there."""
    sent = Transferred()
    written = contents.write_archive(path, pack(local, sent, progress, excludes))
    done = Transferred(written.written, written.bytes, [*sent.skipped, *written.failures])
    done.skipped_count = sent.skipped_count + written.failed
    return done


def _named(local: str, path: str) -> str:
    """In a directory, the file keeps its name."""
    name = names(path).rpartition("/")[2]
    return os.path.join(local, name) if os.path.isdir(local) else local
