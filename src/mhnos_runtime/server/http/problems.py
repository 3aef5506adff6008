"""Errors to HTTP statuses and problem bodies. The only place where the two meet; knows no route."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from mhnos_runtime.errors import (
    Conflict,
    InvalidRequest,
    LimitReached,
    MhnosError,
    NotFound,
    Refused,
    Unavailable,
)

#: By code, where a status says more than that of the kind of error.
_BY_CODE = {
    "too-large": 413,
    "name-taken": 409,
    "key-conflict": 409,
    "offset-mismatch": 409,
    "gone": 410,
    "checksum-mismatch": 460,
    "too-many-connections": 503,
    "disk-full": 507,
}
_BY_KIND: tuple[tuple[type[MhnosError], int], ...] = (
    (InvalidRequest, 400),
    (NotFound, 404),
    (Refused, 403),
    (Conflict, 412),
    (LimitReached, 503),
    (Unavailable, 503),
)


class HttpError(MhnosError):
    """What only HTTP knows of: a status of its own, and headers that belong to it."""

    def __init__(
        self, status: int, code: str, text: str, headers: Mapping[str, str] | None = None, hint: str = ""
    ) -> None:
        super().__init__(text, code=code, hint=hint)
        self.status = status
        self.headers = headers or {}


def status_of(error: MhnosError) -> int:
    if isinstance(error, HttpError):
        return error.status
    by_kind = next((status for kind, status in _BY_KIND if isinstance(error, kind)), 500)
    return _BY_CODE.get(error.code, by_kind)


def problem(error: MhnosError) -> web.Response:
    """{error, code, hint?} with the status of the error."""
    body = {"error": error.message, "code": error.code, **({"hint": error.hint} if error.hint else {})}
    headers = error.headers if isinstance(error, HttpError) else None
    return web.json_response(body, status=status_of(error), headers=headers)


def defect(number: str) -> web.Response:
    """For an error that nobody expected: an id by which the log tells of it, and no more."""
    body = {"error": "The server failed; its log says why", "code": "internal", "id": number}
    return web.json_response(body, status=500)
