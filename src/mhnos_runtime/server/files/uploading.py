"""Who writes which upload at this moment, and the steps of that in threads. Knows uploads and grants; no
HTTP.

An upload has one holder at a time. A client that comes back does so before the loss of its old connection is
noticed (half-open): its PATCH takes the upload over from the old one, whose steps end first, so that no byte
is written twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from mhnos_runtime.errors import Conflict, InvalidRequest
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.paths import explained
from mhnos_runtime.files.space import free_bytes
from mhnos_runtime.files.steps import Steps
from mhnos_runtime.files.uploads import Checksum, Opened, State, Uploads, Wanted
from mhnos_runtime.server.auth.grants import Grant
from mhnos_runtime.server.files.reach import reach
from mhnos_runtime.server.files.work import FileWork, Job

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asking:
    """Who asks. owner: whose work it is, for the pool. end: ends the request, whose client is gone."""

    grant: Grant
    owner: object
    end: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Body:
    """What one request brings. size: None where that is not known before its end."""

    pieces: AsyncIterator[bytes]
    size: int | None = None
    checksum: Checksum | None = None


class _Holder:
    """offset: how far it has come. end: ends its request; None: it ends soon by itself. ended: nothing of it
    runs any more. before: who had the upload, until that has ended. opened: the upload, once it is open."""

    def __init__(self, end: Callable[[], None] | None, offset: int) -> None:
        self.end = end
        self.offset = offset
        self.ended = asyncio.Event()
        self.before: _Holder | None = None
        self.opened: Opened | None = None


class Uploading:
    """Uploads for requests. Methods raise MhnosError, and what reading a body raises."""

    def __init__(self, uploads: Uploads, workspace: Workspace, work: FileWork) -> None:
        self._uploads = uploads
        self._workspace = workspace
        self._work = work
        self._holders: dict[str, _Holder] = {}

    def sweep(self) -> Steps[None]:
        """Remove what has expired, and nobody has at this moment."""
        return self._uploads.sweep(self._holders)

    async def create(self, asking: Asking, wanted: Wanted) -> State:
        workspace = reach(self._workspace, asking.grant)
        with self._work.begin(_nothing, asking.owner) as job:
            make = partial(self._uploads.create, workspace, wanted, asking.grant.principal)
            return await _do(job, wanted.path, make)

    async def append(
        self, asking: Asking, upload_id: str, offset: int, body: Body, length: int | None = None
    ) -> State:
        """Go on with one. length: tells that of one that has none yet. Raises Conflict (offset-mismatch)
        where it goes on elsewhere, InvalidRequest (too-large) for more than its length."""
        async with self._held(asking, upload_id, asking.end, offset) as (holder, job):
            opened = await self._open(asking, upload_id, holder, job)
            path = opened.record.path
            _check_offset(opened.offset, offset)
            if length is not None:
                await _do(job, path, partial(opened.set_length, length))
            _check_size(opened, body.size)
            if body.checksum is not None:
                await _do(job, path, partial(opened.expect, body.checksum))
            async for piece in body.pieces:
                await _do(job, path, partial(opened.write, piece))
                holder.offset = opened.offset
            return await _do(job, path, opened.finish)

    async def state(self, asking: Asking, upload_id: str) -> State:
        """How far one has come. One that is whole takes its place if it has not yet: a server may have been
        killed before."""
        workspace, principal = reach(self._workspace, asking.grant), asking.grant.principal
        with self._work.begin(_nothing, asking.owner) as job:
            record = await _do(job, "/", partial(self._uploads.find, upload_id, principal))
            state = await _do(job, record.path, partial(self._uploads.look, workspace, record))
        if state.record.done is not None or state.offset != state.record.length:
            return state
        # Who has it at this moment can bring nothing more.
        async with self._held(asking, upload_id) as (holder, job):
            opened = await self._open(asking, upload_id, holder, job)
            return await _do(job, opened.record.path, opened.finish)

    async def remove(self, asking: Asking, upload_id: str) -> None:
        """End one, also while it is written."""
        workspace, principal = reach(self._workspace, asking.grant), asking.grant.principal
        async with self._held(asking, upload_id) as (_, job):
            record = await _do(job, "/", partial(self._uploads.find, upload_id, principal))
            await _do(job, record.path, partial(self._uploads.remove, workspace, record))

    async def room(self, asking: Asking) -> int:
        """How many bytes an upload may have at this moment."""
        with self._work.begin(_nothing, asking.owner) as job:
            return await _do(job, "/", partial(room, self._workspace))

    @contextlib.asynccontextmanager
    async def _held(
        self,
        asking: Asking,
        upload_id: str,
        end: Callable[[], None] | None = None,
        offset: int | None = None,
    ) -> AsyncIterator[tuple[_Holder, Job]]:
        """While an upload is this request's alone. end, offset: of the holder; an offset is also where the
        request wants to go on, so that it takes over only there."""
        loop, holder = asyncio.get_running_loop(), _Holder(end, offset or 0)

        def close() -> None:
            if holder.opened is not None:
                holder.opened.close()
            # Where the server ends, nobody waits.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._leave, upload_id, holder)

        with self._work.begin(close, asking.owner) as job:
            # Nobody ends what he may not have.
            await _do(job, "/", partial(self._uploads.find, upload_id, asking.grant.principal))
            await self._take(upload_id, holder, offset)
            try:
                yield holder, job
            finally:
                # Its connection may be at another request by now.
                holder.end = None

    async def _take(self, upload_id: str, holder: _Holder, offset: int | None) -> None:
        """In the order in which they came: who asks again and again keeps nobody away."""
        before = self._holders.get(upload_id)
        if before is not None and before.end is not None:
            if offset is not None:
                _check_offset(before.offset, offset)
            before.end()
        holder.before, self._holders[upload_id] = before, holder
        while before is not None:
            # One that was ended while it waited leaves behind whom it waited for.
            await before.ended.wait()
            before = before.before
        holder.before = None

    def _leave(self, upload_id: str, holder: _Holder) -> None:
        if self._holders.get(upload_id) is holder:
            del self._holders[upload_id]
        holder.ended.set()

    async def _open(self, asking: Asking, upload_id: str, holder: _Holder, job: Job) -> Opened:
        workspace, principal = reach(self._workspace, asking.grant), asking.grant.principal
        record = await _do(job, "/", partial(self._uploads.find, upload_id, principal))

        def open_() -> Opened:
            # Kept here, since a request that ends meanwhile takes no result.
            holder.opened = self._uploads.open(workspace, record)
            return holder.opened

        opened = await _do(job, record.path, open_)
        holder.offset = opened.offset
        return opened


def room(workspace: Workspace) -> int:
    """What clients may still write to the workspace's disk."""
    with workspace.resolve("/") as top:
        return max(0, free_bytes(top.fd) - workspace.min_free)


def _check_offset(now: int, wanted: int) -> None:
    if now != wanted:
        text = f"This upload goes on at {now}, not at {wanted}"
        raise Conflict(text, code="offset-mismatch", hint="ask by HEAD where it goes on")


def _check_size(opened: Opened, size: int | None) -> None:
    length = opened.record.length
    if size is not None and length is not None and size > length - opened.offset:
        raise InvalidRequest(f"More than the {length} bytes of this upload", code="too-large")


async def _do(job: Job, path: str, step: Callable[[], T]) -> T:
    """One step in a thread, waited for. Raises ConnectionError where the job was closed before it."""

    def steps() -> Iterator[T]:
        with explained(path):
            yield step()

    for found in await job.all(steps()):
        return found
    raise ConnectionResetError("the request has ended")


def _nothing() -> None:
    """Closes what holds nothing open."""
