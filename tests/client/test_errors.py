"""Each failure has a code of its own, says whether to try again, and is caught as a ClientError."""

from __future__ import annotations

from mhnos_runtime.client import errors
from mhnos_runtime.client.errors import ClientError, ConnectFailed


def kinds() -> list[type[ClientError]]:
    return [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ClientError)
    ]


def test_each_has_a_code_of_its_own() -> None:
    own = [kind for kind in kinds() if "code" in vars(kind)]
    assert len({kind.code for kind in own}) == len(own) == len(kinds()) - 2  # RequestFailed has the server's


def test_only_what_can_pass_may_be_tried_again() -> None:
    again = {kind.__name__ for kind in kinds() if kind("x").retry}
    assert again == {"ConnectFailed", "ConnectionLost", "RequestTimedOut"}


def test_a_failed_connection_says_how_long_to_wait_only_where_the_server_did() -> None:
    assert ConnectFailed("x").retry_after_s is None
    error = ConnectFailed("x", hint="later", retry=False, retry_after_s=5)
    assert (error.retry_after_s, error.hint, error.retry, str(error)) == (5, "later", False, "x")
