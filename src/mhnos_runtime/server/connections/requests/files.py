"""Requests to push and pull files: between messages and the workspace, in threads, a little at a time. Knows
no frame and no path."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing

from mhnos_runtime.errors import MhnosError
from mhnos_runtime.files import push_pull
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.process.kinds import CACHES
from mhnos_runtime.server.auth.grants import Access, Scope
from mhnos_runtime.server.connections.connection import Connection
from mhnos_runtime.server.connections.requests.table import Row, Rows
from mhnos_runtime.server.files.fsync import Pull, Upload, events, head, write
from mhnos_runtime.server.files.work import FileWork, Job
from mhnos_runtime.wire import encode
from mhnos_runtime.wire import messages as m
from mhnos_runtime.wire.faults import error_message
from mhnos_runtime.wire.parse import WireError
from mhnos_runtime.wire.push import PushParser

#: Of a pull's answer that is kept until it is known whether there is more: most are smaller, and whole.
WHOLE_ANSWER_BYTES = 1 << 20


class FileRequests:
    """Push and pull of the whole workspace."""

    def __init__(self, workspace: Workspace, work: FileWork) -> None:
        self._workspace = workspace
        self._work = work

    def rows(self) -> Rows:
        return {m.Fsync: Row(Scope.FILES, self.fsync, "paths")}

    def fsync(
        self, connection: Connection, request: m.Fsync
    ) -> m.Message | Awaitable[m.FsyncResult] | Awaitable[None]:
        if request.operation == "push":
            connection.grant.require(Access.GRANTED, writes=True)
            return self._push(connection, request)
        if request.operation == "pull":
            return self._pull(connection, request)
        error = f"Unknown operation: {request.operation}"
        return m.FsyncResult(request.operation, "error", error=error, id=request.id)

    async def receive(self, connection: Connection, upload: Upload) -> None:
        """Carry out a large push as it arrives, and answer it. Files that are whole when something goes wrong
        stay."""
        writing, parser = push_pull.Push(self._workspace), PushParser()
        try:
            with self._work.begin(writing.close, connection) as job:
                last = False
                while not last:
                    data, last = await upload.take()
                    await job.all(write(writing, parser.feed(data, last)))
                if (parser.type, parser.operation) != ("fsync", "push"):
                    raise WireError(
                        "Invalid argument: only a push may have so many bytes",
                        code="too-large",
                        request_id=parser.request_id,
                    )
                answer = await _pushed(job, writing, parser.request_id)
        except MhnosError as error:
            upload.drop()
            connection.answer(error_message(error, parser.request_id))
        else:
            connection.answer(answer)

    async def _push(self, connection: Connection, request: m.Fsync) -> m.FsyncResult:
        """Carry out a push that came as an ordinary message."""
        writing = push_pull.Push(self._workspace)
        with self._work.begin(writing.close, connection) as job:
            await job.all(write(writing, events(request.files)))
            return await _pushed(job, writing, request.id)

    async def _pull(self, connection: Connection, request: m.Fsync) -> None:
        """Answer with the workspace's files: at once if that is little, else in pieces that are read as the
        client takes them. For a client that gets answers twice the files are read twice."""
        reply = connection.begin()
        twice = connection.answers_twice(request.id)
        pulled = Pull(self._workspace, CACHES)
        async with aclosing(self._pieces(connection, pulled)) as pieces:
            begun = await _beginning(pieces)
            if len(begun) <= WHOLE_ANSWER_BYTES:
                if pulled.error:
                    answer = m.FsyncResult("pull", "error", error=pulled.error, id=request.id)
                    connection.answer(answer, reply)
                    return
                data = head("fsyncResult") + begun + pulled.tail(request.id)
                reply.set(data, *([encode.as_status(data)] if twice else ()))
                return
            await reply.first.wait()
            await _send(connection, "fsyncResult", begun, pieces, pulled, request.id)
        if twice:
            again = Pull(self._workspace, CACHES)
            async with aclosing(self._pieces(connection, again)) as pieces:
                await _send(connection, "status", b"", pieces, again, request.id)
        reply.set()

    async def _pieces(self, connection: Connection, pulled: Pull) -> AsyncGenerator[bytes]:
        """The entries as JSON, as much at a time as one turn gives."""
        steps = pulled.entries()
        with self._work.begin(steps.close, connection) as job:
            done = False
            while not done:
                found, done = await job.turn(steps)
                yield b"".join(found)


async def _pushed(job: Job, writing: push_pull.Push, request_id: m.RequestId) -> m.FsyncResult:
    await job.all(writing.finish())
    done = writing.result
    failures = [m.FileFailure(path, error) for path, error in done.errors]
    results = m.PushResults(done.synced, done.failed, failures)
    return m.FsyncResult("push", "success", results=results, id=request_id)


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
    pulled: Pull,
    request_id: m.RequestId,
) -> None:
    await connection.part(head(kind) + begun, last=False)
    async for piece in pieces:
        await connection.part(piece, last=False)
    await connection.part(pulled.tail(request_id), last=True)
