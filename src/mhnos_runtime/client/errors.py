"""What can go wrong for a caller of the client, and what that means for the request that failed."""

from __future__ import annotations

from mhnos_runtime.errors import MhnosError


class ClientError(MhnosError):
    """Any failure of the client; `code`, `hint` and `retry` as in MhnosError."""


class RequestFailed(ClientError):
    """The server answered the request with an error; code, hint and retry are the server's."""


class Conflict(RequestFailed):
    """What stands there is not what the request was made for: another version (code `changed`), or something
    where nothing was to be (`already-exists`). Nothing was changed."""

    code = "changed"


class SourceChanged(ClientError):
    """What was to be sent is shorter or longer than it was said to be, such as a file that somebody writes
    meanwhile. Nothing was written."""

    code = "source-changed"


def request_failed(message: str, code: str, hint: str, *, retry: bool) -> RequestFailed:
    """The error for what a server said."""
    kind = Conflict if code in _CONFLICTS else RequestFailed
    return kind(message, code=code, hint=hint, retry=retry)


_CONFLICTS = ("changed", "already-exists")


class RequestTimedOut(ClientError):
    """No answer in time; whether the server carried the request out is not known."""

    code = "timed-out"
    retry = True


class ConnectFailed(ClientError):
    """No connection could be made. `retry_after_s`: how long the server wants to be left alone, None where it
    has not said."""

    code = "connect-failed"
    retry = True

    def __init__(
        self, message: str, *, hint: str = "", retry: bool | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, hint=hint, retry=retry)
        self.retry_after_s = retry_after_s


class Unauthorized(ClientError):
    """The server refused the token (or there was none). Final: the same token is never tried again."""

    code = "unauthorized"


class Forbidden(ClientError):
    """The server refuses this Origin, or the grant has too little; with the code `forbidden-host`, it does
    not answer to the name in the address. Final."""

    code = "forbidden"


class ConnectionLost(ClientError):
    """The connection ended before the answer came; whether the request was carried out is not known."""

    code = "connection-lost"
    retry = True


class ProtocolViolation(ClientError):
    """The server sent what the protocol does not allow, such as a hole in the output without a gap."""

    code = "protocol-violation"


class ProcessLost(ClientError):
    """The server no longer knows the process: its state was lost or the record has expired."""

    code = "process-lost"
