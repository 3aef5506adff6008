"""The one error tree. Knows codes, texts and hints; knows nothing of HTTP, WebSocket or exit codes."""

from __future__ import annotations


class MhnosError(Exception):
    """Something that a person can understand and act on.

    code: stable, kebab-case, for programs. message: what is wrong and what was expected. hint: the next step,
    or "". retry: whether the same request can succeed later without a change.
    """

    code = "internal"
    retry = False

    def __init__(
        self, message: str, *, code: str | None = None, hint: str = "", retry: bool | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code
        if retry is not None:
            self.retry = retry


class InvalidRequest(MhnosError):
    """The client erred: the same request can never succeed."""

    code = "invalid-argument"


class NotFound(MhnosError):
    """What the request names is not there."""

    code = "not-found"


class Refused(MhnosError):
    """The request is understood and not allowed."""

    code = "refused"


class Conflict(MhnosError):
    """What stands there is not what the request was made for; it can succeed once its sender has looked."""

    code = "changed"


class LimitReached(MhnosError):
    """A bound was met; the request can succeed when something has been given back."""

    code = "limit-reached"
    retry = True


class StartFailed(MhnosError):
    """A program could not be started; no process exists."""

    code = "start-failed"


class InstallFailed(MhnosError):
    """An engine could not be installed or removed; what was installed before is as it was."""

    code = "install-failed"


class Unavailable(MhnosError):
    """A part that is needed is not there at the moment."""

    code = "unavailable"
    retry = True


class ConfigError(MhnosError):
    """A setting is wrong; the message names it and what is allowed."""

    code = "invalid-setting"
