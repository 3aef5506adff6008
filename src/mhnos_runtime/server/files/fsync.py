"""Push and pull: files between messages and the workspace, in threads, a little at a time.

Knows one connection and the files of the workspace; must not know processes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec

from mhnos_runtime.errors import InvalidRequest, MhnosError
from mhnos_runtime.files import transfer
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.process.kinds import CACHES
from mhnos_runtime.server.connections.replies import Reply
from mhnos_runtime.server.files.work import Job
from mhnos_runtime.wire import content, encode
from mhnos_runtime.wire import messages as m
from mhnos_runtime.wire.parse import WireError
from mhnos_runtime.wire.push import Event, FileBegin, FileEnd, PushParser
from mhnos_runtime.wire.websocket import Payload

if TYPE_CHECKING:
    from mhnos_runtime.server.connections.connection import Connection

#: Content of all files in one pull. As an array of numbers it is up to four times as long.
MAX_PULL_BYTES = 32 << 20
#: Of a pull's answer that is kept until it is known whether there is more: most are smaller, and whole.
WHOLE_ANSWER_BYTES = 1 << 20
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


async def receive(connection: Connection, upload: Upload) -> None:
    """Carry out a large push as it arrives, and answer it. What is whole when something goes wrong stays."""
    reply, parser = connection.begin(), PushParser()
    writing = transfer.Push(connection.runtime.workspace)
    job = connection.runtime.files.begin(writing.close)
    try:
        last = False
        while not last:
            data, last = await upload.take()
            await job.all(_write(writing, parser.feed(data, last)))
        if (parser.type, parser.operation) != ("fsync", "push"):
            raise WireError(
                "Invalid argument: only a push may have so many bytes",
                code="too-large",
                request_id=parser.request_id,
            )
        await _pushed(connection, reply, job, writing, parser.request_id)
    except MhnosError as error:
        upload.drop()
        connection.fail(error, m.Fsync(), reply)
    finally:
        job.close()


async def push(connection: Connection, request: m.Fsync) -> None:
    """Carry out a push that came as an ordinary message."""
    reply = connection.begin()
    writing = transfer.Push(connection.runtime.workspace)
    job = connection.runtime.files.begin(writing.close)
    try:
        await job.all(_write(writing, _events(request.files)))
        await _pushed(connection, reply, job, writing, request.id)
    finally:
        job.close()


async def _pushed(
    connection: Connection, reply: Reply, job: Job, writing: transfer.Push, request_id: m.RequestId
) -> None:
    await job.all(writing.finish())
    done = writing.result
    failures = [m.FileFailure(path, error) for path, error in done.errors]
    results = m.PushResults(done.synced, done.failed, failures)
    connection.answer(m.FsyncResult("push", "success", results=results, id=request_id), reply)


def _events(files: Iterable[m.FileEntry]) -> Iterator[Event]:
    for file in files:
        yield FileBegin(file.path, file.kind)
        error = ""
        try:
            yield from content.content_chunks(file.content)
        except InvalidRequest as wrong:
            error = wrong.message
        yield FileEnd(file.mtime, error)


def _write(writing: transfer.Push, events: Iterable[Event]) -> Iterator[None]:
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


async def pull(connection: Connection, request: m.Fsync) -> None:
    """Answer with the workspace's files: at once if that is little, else in pieces as the client takes them,
    which nothing keeps; who gets answers twice has the files read twice."""
    reply = connection.begin()
    twice = connection.answers_twice(request.id)
    pulled = _Pull(connection.runtime.workspace)
    async with aclosing(_pieces(connection, pulled)) as pieces:
        begun = await _beginning(pieces)
        if len(begun) <= WHOLE_ANSWER_BYTES:
            if pulled.error:
                answer = m.FsyncResult("pull", "error", error=pulled.error, id=request.id)
                connection.answer(answer, reply)
                return
            data = _head("fsyncResult") + begun + pulled.tail(request.id)
            reply.set(data, *([encode.as_status(data)] if twice else ()))
            return
        await reply.first.wait()
        await _send(connection, "fsyncResult", begun, pieces, pulled, request.id)
    if twice:
        again = _Pull(connection.runtime.workspace)
        async with aclosing(_pieces(connection, again)) as pieces:
            await _send(connection, "status", b"", pieces, again, request.id)
    reply.set()


async def _beginning(pieces: AsyncIterator[bytes]) -> bytes:
    """More than WHOLE_ANSWER_BYTES, or all."""
    begun = bytearray()
    async for piece in pieces:
        begun += piece
        if len(begun) > WHOLE_ANSWER_BYTES:
            break
    return bytes(begun)


async def _send(
    connection: Connection,
    kind: str,
    begun: bytes,
    pieces: AsyncIterator[bytes],
    pulled: _Pull,
    request_id: m.RequestId,
) -> None:
    await connection.part(_head(kind) + begun, last=False)
    async for piece in pieces:
        await connection.part(piece, last=False)
    await connection.part(pulled.tail(request_id), last=True)


async def _pieces(connection: Connection, pulled: _Pull) -> AsyncGenerator[bytes]:
    """The entries as JSON, as much at a time as one turn gives."""
    steps = pulled.entries()
    job = connection.runtime.files.begin(steps.close)
    try:
        done = False
        while not done:
            found, done = await job.turn(steps)
            yield b"".join(found)
    finally:
        job.close()


class _Pull:
    """One walk over the workspace. error: why it has ended early; then what came is not all."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._left_out: list[m.FileFailure] = []
        self.error = ""

    def entries(self) -> Generator[bytes]:
        """JSON of the files and directories with commas between them, in pieces. Blocks."""
        between = b""
        items = transfer.pull(
            self._workspace, max_bytes=MAX_PULL_BYTES, on_skip=self._leave_out, leave_out=CACHES
        )
        try:
            for item in items:
                for piece in self._entry(item):
                    yield between + piece
                    between = b""
                between = b","
        except MhnosError as error:
            self.error = error.message

    def _entry(self, item: transfer.PulledFile) -> Iterator[bytes]:
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
        if len(self._left_out) < transfer.MAX_LISTED_ERRORS:
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


def _head(kind: str) -> bytes:
    return f'{{"type":"{kind}","operation":"pull","files":['.encode()
