"""The routes of the content of files: read and replace. Knows headers of HTTP; what may be done with a path,
and how it is read and written, is known elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Protocol, TypeVar

from aiohttp import hdrs, web

from mhnos_runtime.errors import Conflict, InvalidRequest
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.content import Content
from mhnos_runtime.files.draft import Condition, Draft
from mhnos_runtime.files.entries import Entry, entry_of
from mhnos_runtime.files.paths import explained, normalise
from mhnos_runtime.server.api.file_about import READ, WRITE
from mhnos_runtime.server.api.file_headers import (
    condition_of,
    head_of,
    mode_of,
    mtime_of,
    require_no_condition,
    require_whole,
    status_of,
)
from mhnos_runtime.server.auth.grants import Scope
from mhnos_runtime.server.files.reach import reach
from mhnos_runtime.server.files.shown import file_info
from mhnos_runtime.server.files.work import FileWork, Job
from mhnos_runtime.server.http import conditions
from mhnos_runtime.server.http.call import Call
from mhnos_runtime.server.http.conditions import NoSuchRange, Span
from mhnos_runtime.server.http.problems import HttpError
from mhnos_runtime.server.http.routes import Row
from mhnos_runtime.wire import encode

#: Read in one step and sent in one write.
CHUNK_BYTES = 1 << 19

T = TypeVar("T")


class Archives(Protocol):
    """Directories as one stream. form: as the query has it."""

    async def download(self, call: Call, path: str, form: str) -> web.StreamResponse: ...

    async def upload(self, call: Call, path: str, form: str) -> web.StreamResponse: ...


class FileRoutes:
    def __init__(self, workspace: Workspace, work: FileWork, archives: Archives | None = None) -> None:
        self._workspace = workspace
        self._work = work
        self._archives = archives

    def rows(self) -> tuple[Row, ...]:
        return (
            Row("GET", "/v1/files/{path...}", Scope.FILES, self._get, about=READ),
            Row("PUT", "/v1/files/{path...}", Scope.FILES, self._put, writes=True, about=WRITE),
        )

    async def _get(self, call: Call) -> web.StreamResponse:
        path = "/" + call.params["path"]
        if (form := call.request.query.get("archive")) is not None:
            return await self._archive().download(call, path, form)
        reading = _Reading(reach(self._workspace, call.grant), path)
        with self._work.begin(reading.close, call.visitor) as job, call.transfer():
            try:
                content = await _step(job, reading.open)
            except InvalidRequest as error:
                raise _directory(error) from None
            return await _send(call, job, content)

    async def _put(self, call: Call) -> web.StreamResponse:
        path = "/" + call.params["path"]
        require_whole(call.request.headers)
        if (form := call.request.query.get("archive")) is not None:
            require_no_condition(call.request.headers)
            return await self._archive().upload(call, path, form)
        writing = _Writing(
            reach(self._workspace, call.grant),
            _file_path(path),
            condition_of(call.request.headers),
            mode_of(call.request.headers.get("Mhnos-Mode")),
            mtime_of(call.request.headers.get("Mhnos-Mtime")),
        )
        with self._work.begin(writing.close, call.visitor) as job, call.transfer():
            await _step(job, partial(writing.open, call.request.content_length or 0))
            async for piece in call.pieces():
                await _step(job, partial(writing.write, piece))
            entry, created = await _step(job, writing.commit)
        body = b'{"file":' + encode.encode(file_info(entry)) + b"}"
        headers = {hdrs.ETAG: f'"{entry.version}"'}
        status = 201 if created else 200
        return web.Response(body=body, status=status, headers=headers, content_type="application/json")

    def _archive(self) -> Archives:
        if self._archives is None:
            raise InvalidRequest("There are no archives here")
        return self._archives


async def _step(job: Job, act: Callable[[], T]) -> T:
    """What one call gives that blocks for some ms at most."""

    def steps() -> Iterator[T]:
        yield act()

    (result,) = await job.all(steps())
    return result


class _Reading:
    """A file that may be opened in another thread than the one that asks for its end."""

    def __init__(self, workspace: Workspace, path: str) -> None:
        self._workspace, self._path = workspace, path
        self._content: Content | None = None

    def open(self) -> Content:
        self._content = Content(self._workspace, _file_path(self._path))
        return self._content

    def close(self) -> None:
        if self._content is not None:
            self._content.close()


class _Writing:
    """A file on its way. Steps block, and raise MhnosError."""

    def __init__(
        self, workspace: Workspace, path: str, condition: Condition, mode: int | None, mtime_ms: int | None
    ) -> None:
        self._workspace, self._path = workspace, path
        self._condition, self._mode, self._mtime_ms = condition, mode, mtime_ms
        self._draft: Draft | None = None

    @property
    def draft(self) -> Draft:
        assert self._draft is not None  # noqa: S101 - it is opened first
        return self._draft

    def open(self, coming: int) -> None:
        with explained(self._path):
            self._draft = Draft(self._workspace, self._path, self._condition, self._mode)
            self._draft.require_space(coming)

    def write(self, piece: bytes) -> None:
        with explained(self._path):
            self.draft.write_durably(piece)

    def commit(self) -> tuple[Entry, bool]:
        mtime_ns = None if self._mtime_ms is None else self._mtime_ms * 1_000_000
        with explained(self._path):
            written = self.draft.commit(mtime_ns, durable=True)
        self._draft = None
        return entry_of(written.status, normalise(self._path)), written.created

    def close(self) -> None:
        if self._draft is not None:
            self._draft.drop()


async def _send(call: Call, job: Job, content: Content) -> web.StreamResponse:
    entry, headers = content.entry, call.request.headers
    shown = head_of(entry)
    if (held := status_of(entry, headers)) is not None:
        if held == 412:
            raise Conflict("It is not the version that was asked for", hint="read it again")
        return web.Response(status=held, headers=shown)
    try:
        part = conditions.span(headers, entry.size, entry.version)
    except NoSuchRange:
        sent = {"Content-Range": f"bytes */{entry.size}"}
        raise HttpError(416, "no-such-range", f"It has {entry.size} bytes", sent) from None
    response = web.StreamResponse(status=200 if part is None else 206, headers=shown)
    if part is not None:
        response.headers[hdrs.CONTENT_RANGE] = f"bytes {part.start}-{part.end - 1}/{entry.size}"
    part = part or Span(0, entry.size)
    response.content_length = part.size
    await call.begin(response)
    if call.request.method != "HEAD":
        async for data in _pieces(call, job, content, part):
            await response.write(data)
    await response.write_eof()
    return response


async def _pieces(call: Call, job: Job, content: Content, part: Span) -> AsyncIterator[bytes]:
    """Ends the connection where the file is not what it was: a client that got fewer bytes than it was told
    knows that it has not got it all."""
    for start in range(part.start, part.end, CHUNK_BYTES):
        size = min(CHUNK_BYTES, part.end - start)
        try:
            yield await _step(job, partial(content.read, start, size))
        except Conflict as error:
            call.visitor.close()
            raise ConnectionResetError(error.message) from error


def _file_path(path: str) -> str:
    if path.endswith("/"):
        raise _directory(InvalidRequest("This names a directory", code="is-a-directory"))
    return path


def _directory(error: InvalidRequest) -> InvalidRequest:
    if error.code != "is-a-directory" or error.hint:
        return error
    hint = "?archive=tar or ?archive=zip gives all that is in it; the message listFiles lists it"
    return InvalidRequest(error.message, code=error.code, hint=hint)
