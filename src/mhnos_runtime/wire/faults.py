"""Errors to the `error` messages that show them. The only place where the two meet; knows no request."""

from __future__ import annotations

from msgspec import UNSET

from mhnos_runtime.errors import MhnosError
from mhnos_runtime.wire.messages import ErrorMessage, RequestId
from mhnos_runtime.wire.parse import WireError


def error_message(
    error: MhnosError, request_id: RequestId = UNSET, *, pid: int | None = None
) -> ErrorMessage:
    """The answer for `error`. A WireError brings its own id; `pid` names the process concerned."""
    if isinstance(error, WireError):
        request_id = error.request_id
    return ErrorMessage(
        error.message,
        code=error.code,
        hint=error.hint or UNSET,
        retry=error.retry,
        pid=UNSET if pid is None else pid,
        id=request_id,
    )
