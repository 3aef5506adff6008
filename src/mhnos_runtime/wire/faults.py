"""Errors to `error` messages, the one place that makes these. Must not know requests."""

from __future__ import annotations

from msgspec import UNSET

from mhnos_runtime.errors import MhnosError
from mhnos_runtime.wire.messages import ErrorMessage, RequestId
from mhnos_runtime.wire.parse import WireError

#: Of a text that a client sent, in an answer that shows it: enough to recognise it.
SHOWN_CHARACTERS = 200
#: Of an error's text and of its hint: every text of our own is shorter.
_TEXT_CHARACTERS = 2000


def shorten(text: str, characters: int = SHOWN_CHARACTERS) -> str:
    """The text, or its first `characters` and an ellipsis."""
    return text if len(text) <= characters else text[:characters] + "…"


def error_message(
    error: MhnosError, request_id: RequestId = UNSET, *, pid: int | None = None
) -> ErrorMessage:
    """The answer for `error`. A WireError brings its own id; `pid` names the process concerned."""
    if isinstance(error, WireError):
        request_id = error.request_id
    return ErrorMessage(
        shorten(error.message, _TEXT_CHARACTERS),
        code=error.code,
        hint=shorten(error.hint, _TEXT_CHARACTERS) or UNSET,
        retry=error.retry,
        pid=UNSET if pid is None else pid,
        id=request_id,
    )
