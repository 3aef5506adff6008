"""The routes of resumable uploads, by tus 1.0: make one, ask how far it has come, go on, end it. Knows the
protocol's requests and answers; what an upload is is known elsewhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from functools import wraps
from typing import TypeAlias

from aiohttp import hdrs, web

from mhnos_runtime.errors import MhnosError
from mhnos_runtime.files.uploads import State
from mhnos_runtime.server.api import tus_headers as tus
from mhnos_runtime.server.api import upload_about as about
from mhnos_runtime.server.auth.grants import Scope
from mhnos_runtime.server.files.uploading import Asking, Body, Uploading
from mhnos_runtime.server.http import conditions
from mhnos_runtime.server.http.call import Call, ending
from mhnos_runtime.server.http.problems import HttpError, status_of
from mhnos_runtime.server.http.routes import Row

_EXTENSIONS = "creation,creation-with-upload,creation-defer-length,termination,expiration,checksum"
#: In every answer. What a HEAD tells is true for the moment only.
_ALWAYS = {"Tus-Resumable": tus.VERSION, "Cache-Control": "no-store"}

_Handler: TypeAlias = "Callable[[UploadRoutes, Call], Awaitable[web.Response]]"


def _tus(handle: _Handler) -> Callable[[UploadRoutes, Call], Awaitable[web.Response]]:
    """A handler of the protocol: for clients of its version, with its headers in every answer."""

    @wraps(handle)
    async def answer(routes: UploadRoutes, call: Call) -> web.Response:
        try:
            _check_version(call.request.headers)
            response = await handle(routes, call)
        except MhnosError as error:
            own = error.headers if isinstance(error, HttpError) else {}
            headers = {**_ALWAYS, **own}
            raise HttpError(status_of(error), error.code, error.message, headers, error.hint) from error
        response.headers.update(_ALWAYS)
        return response

    return answer


class UploadRoutes:
    def __init__(self, uploading: Uploading) -> None:
        self._uploading = uploading

    def rows(self) -> tuple[Row, ...]:
        one = "/v1/uploads/{id}"
        return (
            Row("OPTIONS", "/v1/uploads", Scope.FILES, self._options, about=about.OPTIONS),
            Row("POST", "/v1/uploads", Scope.FILES, self._create, writes=True, about=about.CREATE),
            Row("HEAD", one, Scope.FILES, self._head, writes=True, about=about.HEAD),
            Row("PATCH", one, Scope.FILES, self._patch, writes=True, about=about.PATCH),
            Row("DELETE", one, Scope.FILES, self._delete, writes=True, about=about.DELETE),
            Row("POST", one, Scope.FILES, self._overridden, writes=True, about=about.OVERRIDDEN),
        )

    async def _options(self, call: Call) -> web.Response:
        """Whatever version is asked for: this says which there are."""
        room = await self._uploading.room(_asking(call))
        headers = {
            **_ALWAYS,
            "Tus-Version": tus.VERSION,
            "Tus-Extension": _EXTENSIONS,
            "Tus-Checksum-Algorithm": ",".join(tus.ALGORITHMS),
            "Tus-Max-Size": str(room),
        }
        return web.Response(status=204, headers=headers)

    @_tus
    async def _create(self, call: Call) -> web.Response:
        wanted, asking, body = tus.wanted(call.request.headers), _asking(call), _body(call)
        brings = call.request.headers.get(hdrs.CONTENT_TYPE) == tus.MEDIA_TYPE and call.request.body_exists
        # Before anything is begun that its client would not hear of.
        with call.transfer() if brings else nullcontext():
            state = await self._uploading.create(asking, wanted)
            if brings:
                state = await self._uploading.append(asking, state.record.id, 0, body)
        where = f"{_address(call.request)}/{state.record.id}"
        return _answer(state, 201, {hdrs.LOCATION: where})

    @_tus
    async def _head(self, call: Call) -> web.Response:
        state = await self._uploading.state(_asking(call), call.params["id"])
        length, metadata = state.record.length, state.record.metadata
        told = {"Upload-Defer-Length": "1"} if length is None else {"Upload-Length": str(length)}
        return _answer(state, 200, {**told, **({"Upload-Metadata": metadata} if metadata else {})})

    @_tus
    async def _patch(self, call: Call) -> web.Response:
        headers = call.request.headers
        if headers.get(hdrs.CONTENT_TYPE) != tus.MEDIA_TYPE:
            raise HttpError(415, "unsupported-type", f"This takes Content-Type: {tus.MEDIA_TYPE}")
        offset, length = tus.required(headers, "Upload-Offset"), tus.number(headers, "Upload-Length")
        with call.transfer():
            state = await self._uploading.append(
                _asking(call), call.params["id"], offset, _body(call), length
            )
        return _answer(state, 204)

    @_tus
    async def _delete(self, call: Call) -> web.Response:
        await self._uploading.remove(_asking(call), call.params["id"])
        return web.Response(status=204)

    async def _overridden(self, call: Call) -> web.Response:
        """For clients behind something that lets only GET and POST through."""
        method = call.request.headers.get("X-HTTP-Method-Override", "")
        handlers = {"HEAD": self._head, "PATCH": self._patch, "DELETE": self._delete}
        if method not in handlers:
            raise HttpError(405, "method-not-allowed", "This takes DELETE, HEAD, PATCH", _ALWAYS)
        return await handlers[method](call)


def _check_version(headers: Mapping[str, str]) -> None:
    if headers.get("Tus-Resumable") != tus.VERSION:
        raise HttpError(
            412,
            "wrong-version",
            f"This needs the header Tus-Resumable: {tus.VERSION}",
            {"Tus-Version": tus.VERSION},
        )


def _address(request: web.BaseRequest) -> str:
    """The whole URL as the client wrote it: not every client understands a part of one. A proxy that ends TLS
    says so."""
    forwarded = request.headers.get("X-Forwarded-Proto", "").partition(",")[0].strip().lower()
    of_this_page = request.headers.get(hdrs.ORIGIN, "") == f"https://{request.host}"
    secure = request.scheme == "https" or forwarded == "https" or of_this_page
    return f"{'https' if secure else 'http'}://{request.host}{request.rel_url.raw_path}"


def _asking(call: Call) -> Asking:
    return Asking(call.grant, call.visitor, ending(call.visitor))


def _body(call: Call) -> Body:
    return Body(call.pieces(), call.request.content_length, tus.checksum(call.request.headers))


def _answer(state: State, status: int, headers: Mapping[str, str] | None = None) -> web.Response:
    """With what the file has become, once it is whole."""
    told = {"Upload-Offset": str(state.offset), "Upload-Expires": conditions.date(int(state.expires))}
    if (done := state.record.done) is not None:
        told |= {
            hdrs.ETAG: f'"{done.version}"',
            "Mhnos-Mode": f"{done.mode:04o}",
            "Mhnos-Mtime": str(done.mtime_ms),
        }
    return web.Response(status=status, headers={**told, **(headers or {})})
