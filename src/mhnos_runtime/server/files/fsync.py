"""Push and pull as protocol 1.0 has them: files between messages and the workspace, in steps that block.

Knows the files of the workspace; not who asked, and no processes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Generator, Iterable, Iterator

import msgspec

from mhnos_runtime.errors import InvalidRequest, MhnosError
from mhnos_runtime.files import push_pull
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.wire import content, encode
from mhnos_runtime.wire import messages as m
from mhnos_runtime.wire.push import FileBegin, FileEnd, FilePiece
from mhnos_runtime.wire.websocket import Payload

#: Content of all files in one pull. As an array of numbers it is up to four times as long.
MAX_PULL_BYTES = 32 << 20
#: Read and shown as numbers in one step: up to 256 KiB of JSON, in some 2 ms.
PULL_CHUNK_BYTES = 1 << 16
#: Of a push on its way: so much is worth a turn, and above so much no more is read from the network.
PIECE_BYTES = 1 << 18
MAX_WAITING_BYTES = 1 << 19


class Upload:
    """A push of more than other messages may have, while it arrives: at most MAX_WAITING_BYTES and one read
    of the socket. moved: called when some of it was taken."""

    def __init__(self, moved: Callable[[], None]) -> None:
        self._moved = moved
        self._data = bytearray()
        self._ended = self._dropped = False
        self._enough = asyncio.Event()

    @property
    def full(self) -> bool:
        return len(self._data) > MAX_WAITING_BYTES

    def feed(self, data: Payload, last: bool) -> None:
        self._ended = last
        if not self._dropped:
            self._data += data
            if last or len(self._data) >= PIECE_BYTES:
                self._enough.set()

    async def take(self) -> tuple[bytes, bool]:
        """The next piece, and whether it is the last one."""
        await self._enough.wait()
        self._enough.clear()
        data, self._data = bytes(self._data), bytearray()
        self._moved()
        return data, self._ended

    def drop(self) -> None:
        """Throw away what still comes."""
        self._dropped, self._data = True, bytearray()
        self._moved()


def events(files: Iterable[m.FileEntry]) -> Iterator[FilePiece]:
    for file in files:
        yield FileBegin(file.path, file.kind)
        error = ""
        try:
            yield from content.content_chunks(file.content)
        except InvalidRequest as wrong:
            error = wrong.message
        yield FileEnd(file.mtime, error)


def write(writing: push_pull.Push, events: Iterable[FilePiece]) -> Iterator[None]:
    for event in events:
        if isinstance(event, FileBegin):
            writing.begin(event.path, event.kind)
        elif isinstance(event, FileEnd):
            if event.error and writing.takes:
                writing.fail(event.error)
            writing.end(event.mtime_ms)
        else:
            writing.write(event)
        yield


class Pull:
    """One walk over the workspace. skipped: paths, such as "/a/b", that are passed over with all that is in
    them. error: why it has ended early; then what came is not all."""

    def __init__(self, workspace: Workspace, skipped: Container[str] = ()) -> None:
        self._workspace = workspace
        self._skipped = skipped
        self._left_out: list[m.FileFailure] = []
        self.error = ""

    def entries(self) -> Generator[bytes]:
        """JSON of the files and directories with commas between them, in pieces. Blocks."""
        between = b""
        items = push_pull.pull(
            self._workspace, max_bytes=MAX_PULL_BYTES, on_skip=self._leave_out, leave_out=self._skipped
        )
        try:
            for item in items:
                for piece in self._entry(item):
                    yield between + piece
                    between = b""
                between = b","
        except MhnosError as error:
            self.error = error.message

    def _entry(self, item: push_pull.PulledFile) -> Iterator[bytes]:
        entry = encode.encode(m.FileEntry(item.path, item.kind, mtime=item.mtime_ms))
        if item.kind == "directory":
            yield entry
            return
        chunks = item.chunks(PULL_CHUNK_BYTES)
        try:
            # Whether it can be read shows here, before anything is said of it.
            first = next(chunks, b"")
        except MhnosError as error:
            self._leave_out(item.path, error.message)
            return
        yield entry[:-1] + b',"content":[' + content.listed(first)
        for chunk in chunks:
            yield b"," + content.listed(chunk)
        yield b"]}"

    def _leave_out(self, path: str, reason: str) -> None:
        if len(self._left_out) < push_pull.MAX_LISTED_ERRORS:
            self._left_out.append(m.FileFailure(path, reason))

    def tail(self, request_id: m.RequestId) -> bytes:
        """What stands behind the entries."""
        answer = m.FsyncResult(
            "pull",
            "error" if self.error else "success",
            errors=self._left_out or msgspec.UNSET,
            error=self.error or msgspec.UNSET,
            id=request_id,
        )
        rest = encode.encode(answer)
        return b"]," + rest[rest.index(b'"status"') :]


def head(kind: str) -> bytes:
    return f'{{"type":"{kind}","operation":"pull","files":['.encode()
