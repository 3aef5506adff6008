"""Signals that end a command raise what Ctrl-C raises, so that what is half is put away. Knows no verb."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def as_keyboard_interrupts() -> Iterator[None]:
    """SIGTERM and SIGHUP raise KeyboardInterrupt."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before: list[tuple[int, Callable[..., Any] | int | None]] = [
        (number, signal.signal(number, interrupt)) for number in (signal.SIGTERM, signal.SIGHUP)
    ]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
