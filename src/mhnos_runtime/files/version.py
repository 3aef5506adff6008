"""The version of a file: a short text that is another one after every change. Knows stat data and the
kernel's clock; reads no content."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from mhnos_runtime.errors import InvalidRequest

#: Of Linux, which the time module does not name: the clock that a file's times are taken from, which moves
#: once a tick (clock_gettime(2); 1 to 10 ms).
_CLOCK_REALTIME_COARSE = 5
#: How long a tick is waited for. A time further in the future is of a clock that was set back.
_MAX_WAIT_SECONDS = 0.05
_WAIT_SECONDS = 0.001
_VERSION_BYTES = 12

T = TypeVar("T")


def version_of(status: os.stat_result) -> str:
    """24 hexadecimal digits. ctime is in it, which no program can set."""
    seen = f"{status.st_ino}.{status.st_size}.{status.st_mtime_ns}.{status.st_ctime_ns}"
    return hashlib.blake2b(seen.encode(), digest_size=_VERSION_BYTES).hexdigest()


def tick_ns() -> int:
    """The time that a file gets which changes now, ns since the epoch. Read it before the file."""
    return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)


def is_settled(status: os.stat_result, now_ns: int) -> bool:
    """Whether every change after `now_ns` makes another version. now_ns: see tick_ns."""
    return not 0 <= status.st_ctime_ns - now_ns < _MAX_WAIT_SECONDS * 1e9


def settled(look: Callable[[], os.stat_result]) -> os.stat_result:
    """What `look` gives once the clock's tick of the last change is over: every later change bears a later
    time, and so makes another version. Blocks for some ms where a file has just changed."""
    until = time.monotonic() + _MAX_WAIT_SECONDS
    while True:
        now_ns = tick_ns()
        status = look()
        if is_settled(status, now_ns) or time.monotonic() >= until:
            return status
        time.sleep(_WAIT_SECONDS)


def settled_all(
    look: Callable[[T], os.stat_result | None], items: Sequence[T]
) -> list[os.stat_result | None]:
    """As `settled`, for many: a tick is waited for once, and not by each. look: None for what is gone."""
    until = time.monotonic() + _MAX_WAIT_SECONDS
    now_ns = tick_ns()
    found = [look(item) for item in items]
    while late := [n for n, each in enumerate(found) if each is not None and not is_settled(each, now_ns)]:
        if time.monotonic() >= until:
            break
        time.sleep(_WAIT_SECONDS)
        now_ns = tick_ns()
        for number in late:
            found[number] = look(items[number])
    return found


def check_version(text: str) -> str:
    """A version as a client sends it. Raises InvalidRequest."""
    if len(text) != 2 * _VERSION_BYTES or not set(text) <= set("0123456789abcdef"):
        raise InvalidRequest("Not a version of a file")
    return text
