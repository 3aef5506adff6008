"""One thing asked of each of several processes or files, as docker's verbs do. Knows no verb."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from mhnos_runtime.cli import exits, say

T = TypeVar("T")


def each(handles: Iterable[T], ask: Callable[[T], str | None]) -> int:
    """Ask for each, and print what is answered, or why not; the exit code is 1 where one failed."""
    from mhnos_runtime.client.errors import RequestFailed

    code = exits.OK
    for handle in handles:
        try:
            told = ask(handle)
        except RequestFailed as error:
            say.error(error.message, error.hint)
            code = exits.FAILED
        else:
            if told is not None:
                print(told, flush=True)
    return code
