"""What is said where nobody knows whether a change was made, and of patterns that no shell expanded."""

from __future__ import annotations

from typing import Any, cast

import pytest

from mhnos_runtime.cli.looking import change, hint_of
from mhnos_runtime.client.direct import Direct
from mhnos_runtime.client.errors import ClientError, ConnectionLost, RequestFailed, RequestTimedOut
from mhnos_runtime.wire import messages as m


class Lost:
    """A connection that ends in the middle of a request."""

    def __init__(self, error: ClientError) -> None:
        self._error = error

    def ask(self, *_: Any) -> m.Message:
        raise self._error


@pytest.mark.parametrize("kind", [ConnectionLost, RequestTimedOut])
def test_a_change_without_an_answer_may_have_been_made(kind: type[ClientError]) -> None:
    runtime = cast("Direct", Lost(kind("the connection was lost")))
    with pytest.raises(kind) as raised:
        change(runtime, m.RemoveFile(path="/a b"), m.FileRemoved, "/a b")
    assert raised.value.message == "the connection was lost"
    assert raised.value.hint == "it may have been done: look with `mhnos-runtime ls -ld '/a b'`"


def test_a_refusal_is_passed_on_as_it_is() -> None:
    runtime = cast("Direct", Lost(RequestFailed("no", code="forbidden", hint="ask somebody")))
    with pytest.raises(RequestFailed) as raised:
        change(runtime, m.RemoveFile(path="/a"), m.FileRemoved, "/a")
    assert (raised.value.code, raised.value.hint) == ("forbidden", "ask somebody")


def test_a_pattern_that_no_shell_expanded() -> None:
    missing = RequestFailed("No such file or directory", code="not-found")
    assert "grep --files --ignored --name '/logs/*.log'" in hint_of(missing, "/logs/*.log")
    assert hint_of(missing, "/logs/a.log") == ""
    assert hint_of(RequestFailed("no", code="refused", hint="why"), "/*") == "why"
