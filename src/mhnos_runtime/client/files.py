"""The files of the workspace for asyncio programs: content goes over HTTP in threads, all else as messages.
Must not know sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar, Unpack

from mhnos_runtime.client import local_files
from mhnos_runtime.client.contents import Contents, Download
from mhnos_runtime.client.dial import SslOption
from mhnos_runtime.client.discovery import Target
from mhnos_runtime.client.errors import ConnectionLost, RequestFailed
from mhnos_runtime.client.local_files import Progress
from mhnos_runtime.client.tar_stream import Transferred
from mhnos_runtime.client.types import FileSearchOptions
from mhnos_runtime.client.watches import Watch, Watches
from mhnos_runtime.wire import messages as m

if TYPE_CHECKING:
    from mhnos_runtime.client.requests import Requests

MAX_READ_BYTES = 64 * 1024 * 1024  # of a file that is read into memory, unless told otherwise
#: Transfers at the same time, each a thread and a connection; further ones wait.
MAX_TRANSFERS = 4
#: For a thread whose connection was ended to come back; one that still dials is left to itself.
GOODBYE_S = 1.0
#: What looks at many files, or at all of a large one, takes its time. A lost connection is noticed anyway.
LONG_TIMEOUT_S = 3600.0

T = TypeVar("T")


class Files:
    """`runtime.files`. Paths start at the top of the workspace: "/src/a.py" or "src/a.py".

    All methods raise RequestFailed (Conflict where something changed meanwhile, or is there already),
    ConnectionLost where nobody knows whether it was done, and what ended the connection for good. version:
    only if the file has it. absent: only if nothing is there. progress: is told bytes so far, in another
    thread.
    """

    def __init__(
        self, requests: Requests, watches: Watches, target: Target, ssl_option: SslOption = True
    ) -> None:
        self._requests = requests
        self._watches = watches
        self._target = target
        self._ssl_option = ssl_option
        self._pool: ThreadPoolExecutor | None = None
        self._idle: list[Contents] = []
        self._busy: set[Contents] = set()

    # What is there

    async def list(self, path: str = "/") -> AsyncIterator[m.FileInfo]:
        """What is in a directory, by name."""
        after: str | None = None
        while True:
            page = await self._requests.request(m.ListFiles(path=path, after=after), m.FileList, resend=True)
            for file in page.files:
                yield file
            if (after := page.next) is None:
                return

    async def stat(self, path: str, *, follow: bool = True, sha256: bool = False) -> m.FileStat:
        """What stands at a path. follow: what a link leads to, not the link. sha256: of its content, too."""
        message = m.StatFile(path=path, follow=follow, sha256=sha256)
        return await self._requests.request(message, m.FileStat, resend=True, timeout_s=LONG_TIMEOUT_S)

    async def search(self, path: str = "/", **options: Unpack[FileSearchOptions]) -> m.FileSearchResult:
        """Find files below a directory by name, by lines that match a pattern, or by both; or lines of one
        file."""
        message = m.SearchFiles(path=path, **options)
        return await self._requests.request(
            message, m.FileSearchResult, resend=True, timeout_s=LONG_TIMEOUT_S
        )

    def watch(self, path: str = "/", *, ignore: Sequence[str] | None = None) -> Watch:
        """What changes below a directory from now on, also over lost connections: `async for event in ...`.
        ignore: lines as in .gitignore; None: dependencies, version control, caches."""
        return Watch(self._watches, path, ignore)

    # Content

    async def read(self, path: str, *, version: str | None = None, max_bytes: int = MAX_READ_BYTES) -> bytes:
        """All of a file. Raises RequestFailed (too-large) for one of more than max_bytes."""

        def work(contents: Contents) -> bytes:
            with contents.read(path, version=version) as content:
                _check_size(path, content, max_bytes)
                return b"".join(content)

        return await self.run(work)

    async def read_text(
        self,
        path: str,
        *,
        encoding: str = "utf-8",
        version: str | None = None,
        max_bytes: int = MAX_READ_BYTES,
    ) -> str:
        """As `read`. Raises UnicodeDecodeError for what is no text in this encoding."""
        return (await self.read(path, version=version, max_bytes=max_bytes)).decode(encoding)

    async def write(
        self,
        path: str,
        content: bytes | str,
        *,
        version: str | None = None,
        absent: bool = False,
        mode: int | None = None,
    ) -> m.FileInfo:
        """Make it the file's content, whole or not at all; a text as UTF-8. Directories are made."""
        data = content.encode() if isinstance(content, str) else content
        return await self.run(
            lambda contents: contents.write(
                path, [data], size=len(data), version=version, absent=absent, mode=mode
            )
        )

    async def open(self, path: str, *, start: int = 0, version: str | None = None) -> AsyncIterator[bytes]:
        """A file's content from byte `start` on, in pieces of 256 KiB at most; what is not taken is not
        read."""
        async with self._contents() as contents:
            content = await self._in_thread(
                contents, lambda: contents.read(path, start=start, version=version)
            )
            with content:
                pieces = iter(content)
                while (piece := await self._in_thread(contents, lambda: next(pieces, None))) is not None:
                    yield piece

    async def download(
        self, path: str, local: str | os.PathLike[str], *, progress: Progress = int
    ) -> m.FileInfo:
        """Bring a file to this machine, over lost connections; what stands there is replaced when all of it
        has come. local: a directory, or a path for the file. Raises also OSError."""
        place = os.fspath(local)
        return await self.run(lambda contents: local_files.download(contents, path, place, progress))

    async def upload(
        self,
        local: str | os.PathLike[str],
        path: str,
        *,
        version: str | None = None,
        absent: bool = False,
        progress: Progress = int,
    ) -> m.FileInfo:
        """Bring a file of this machine into the workspace, over lost connections. Raises also OSError, and
        SourceChanged when it gets shorter meanwhile."""
        place = os.fspath(local)
        return await self.run(
            lambda contents: local_files.upload(
                contents, place, path, version=version, absent=absent, progress=progress
            )
        )

    async def download_directory(
        self, path: str, local: str | os.PathLike[str], *, progress: Progress = int
    ) -> Transferred:
        """Bring a directory with all that is in it to this machine. One that is not there yet appears when
        all of it has come. Raises also OSError."""
        place = os.fspath(local)
        return await self.run(
            lambda contents: local_files.download_directory(contents, path, place, progress)
        )

    async def upload_directory(
        self, local: str | os.PathLike[str], path: str, *, progress: Progress = int
    ) -> Transferred:
        """Bring a directory of this machine into the workspace; what is there stays, unless it has the same
        path. Raises also OSError, and SourceChanged when a large file gets shorter meanwhile."""
        place = os.fspath(local)
        return await self.run(lambda contents: local_files.upload_directory(contents, place, path, progress))

    # Changes

    async def make_directory(self, path: str, *, parents: bool = False) -> m.FileInfo:
        """parents: make those that are missing, too; then it is no error if it is there already."""
        message = m.MakeDirectory(path=path, parents=parents)
        return (await self._requests.request(message, m.DirectoryMade, resend=parents)).file

    async def move(
        self, from_: str, to: str, *, replace: bool = False, version: str | None = None
    ) -> m.FileMoved:
        """Give a file, link or directory another path. replace: what stands there goes to the trash."""
        message = m.MoveFile(from_=from_, to=to, replace=replace, version=version)
        return await self._requests.request(message, m.FileMoved, timeout_s=LONG_TIMEOUT_S)

    async def copy(self, from_: str, to: str, *, replace: bool = False) -> m.FileCopied:
        """Copy a file, a link, or a directory with what is in it."""
        message = m.CopyFile(from_=from_, to=to, replace=replace)
        return await self._requests.request(message, m.FileCopied, timeout_s=LONG_TIMEOUT_S)

    async def remove(
        self, path: str, *, recursive: bool = False, outright: bool = False, version: str | None = None
    ) -> m.FileRemoved:
        """Put it into the trash. recursive: also a directory that has something in it. outright: for
        ever."""
        message = m.RemoveFile(path=path, recursive=recursive, outright=outright, version=version)
        return await self._requests.request(message, m.FileRemoved, timeout_s=LONG_TIMEOUT_S)

    async def trash(self) -> AsyncIterator[m.TrashItem]:
        """What can be had back, the latest first."""
        before: str | None = None
        while True:
            page = await self._requests.request(m.ListTrash(before=before), m.TrashList, resend=True)
            for item in page.items:
                yield item
            if (before := page.next) is None:
                return

    async def restore(self, item: str, to: str | None = None) -> m.FileInfo:
        """Have it back, by its id, where it was or elsewhere. Nothing may stand there."""
        message = m.RestoreFile(item=item, to=to)
        answer = await self._requests.request(message, m.FileRestored, timeout_s=LONG_TIMEOUT_S)
        return answer.file

    async def empty_trash(self, items: Sequence[str] | None = None) -> int:
        """Remove for ever what is in the trash, or these of it, by their ids; returns how many were."""
        message = m.EmptyTrash(items=None if items is None else [*items])
        answer = await self._requests.request(message, m.TrashEmptied, timeout_s=LONG_TIMEOUT_S)
        return answer.items

    # Threads

    async def run(self, work: Callable[[Contents], T]) -> T:
        """Do something with Contents in a thread. Cancelled: its connection is ended, so that the thread
        comes back. Raises what it does."""
        async with self._contents() as contents:
            return await self._in_thread(contents, lambda: work(contents))

    async def close(self) -> None:
        """End what is under way. The runtime does it when it is left."""
        for each in [*self._busy]:
            each.interrupt()
        for each in self._idle:
            each.close()
        self._idle.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    @contextlib.asynccontextmanager
    async def _contents(self) -> AsyncIterator[Contents]:
        """One that nobody else uses meanwhile, with an open connection where there is one."""
        contents = self._idle.pop() if self._idle else Contents(self._target, ssl_option=self._ssl_option)
        self._busy.add(contents)
        try:
            yield contents
        except BaseException as error:
            if not isinstance(error, RequestFailed):
                contents.interrupt()
            raise
        finally:
            self._busy.discard(contents)
            self._keep(contents)

    def _keep(self, contents: Contents) -> None:
        if contents.over or len(self._idle) >= MAX_TRANSFERS:
            contents.close()
        else:
            self._idle.append(contents)

    async def _in_thread(self, contents: Contents, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(MAX_TRANSFERS, thread_name_prefix="mhnos-files")
        running = loop.run_in_executor(self._pool, work)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            if running.cancelled():  # it had not begun when the client was closed
                raise ConnectionLost("the client was closed", retry=False) from None
            contents.interrupt()
            running.cancel()
            running.add_done_callback(lambda done: done.cancelled() or done.exception())
            await asyncio.wait([running], timeout=GOODBYE_S)
            raise


def _check_size(path: str, content: Download, max_bytes: int) -> None:
    if content.size is None or content.size > max_bytes:
        raise RequestFailed(
            f"{path} has {content.size} bytes, more than {max_bytes}",
            code="too-large",
            hint="`open` reads it piece by piece, `download` into a file; max_bytes= allows more",
        )
