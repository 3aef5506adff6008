"""What answers say to browsers (CORS, as in the Fetch standard): which pages may read them, and the preflight
of a request that pages of other origins may not just send. Knows headers, not who is allowed."""

from __future__ import annotations

from aiohttp import hdrs, web

#: In every answer. A page that may not read it learns nothing from a request without CORS either: its browser
#: turns the answer into the same error as no answer (Fetch, 3.7), and takes it for nothing but what it says.
_ALWAYS = {
    "Vary": "Origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
#: The same for each path, so that a preflight does not tell which paths there are.
_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
_HEADERS = ", ".join(
    (
        *("Authorization", "Content-Type", "Range"),
        *("If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range"),
        *("Mhnos-Mode", "Mhnos-Mtime"),
        # tus 1.0, with what its clients send beside
        *("Tus-Resumable", "Upload-Length", "Upload-Offset", "Upload-Metadata", "Upload-Defer-Length"),
        *("Upload-Concat", "Upload-Checksum", "X-HTTP-Method-Override", "X-Requested-With", "X-Request-ID"),
    )
)
#: Headers that a page may read beside those that it always may.
_EXPOSED = ", ".join(
    (
        *("Retry-After", "Location", "ETag", "Content-Range", "Accept-Ranges", "Content-Disposition"),
        *("Mhnos-Mode", "Mhnos-Mtime"),
        *("Tus-Resumable", "Tus-Version", "Tus-Extension", "Tus-Max-Size", "Tus-Checksum-Algorithm"),
        *("Upload-Length", "Upload-Offset", "Upload-Metadata", "Upload-Expires", "Upload-Defer-Length"),
    )
)
#: How long a browser need not ask again. The request itself is checked each time.
_MAX_AGE_SECONDS = 600


def is_preflight(request: web.BaseRequest) -> bool:
    """Whether a browser asks if a page may send a request (Fetch, 4.8). It never shows a token."""
    asks = hdrs.ORIGIN in request.headers and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
    return request.method == "OPTIONS" and asks


def preflight(request: web.BaseRequest) -> web.Response:
    """Every request may be sent: who may not have the answer is refused then, and may read why."""
    headers: dict[str, str] = {
        hdrs.ACCESS_CONTROL_ALLOW_METHODS: _METHODS,
        hdrs.ACCESS_CONTROL_ALLOW_HEADERS: _HEADERS,
        hdrs.ACCESS_CONTROL_MAX_AGE: str(_MAX_AGE_SECONDS),
    }
    # Private Network Access: a page of the internet asks for an address of this network or machine.
    if request.headers.get("Access-Control-Request-Private-Network") == "true":
        headers["Access-Control-Allow-Private-Network"] = "true"
    return web.Response(status=204, headers=headers)


def address(response: web.StreamResponse, reader: str | None) -> None:
    """Let pages of one origin read an answer, or of none. Its headers have not been sent yet."""
    response.headers.update(_ALWAYS)
    if reader is not None:
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = reader
        response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _EXPOSED
