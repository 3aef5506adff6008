"""Runs a loop in the test's own thread, until what the test waits for is there."""

from __future__ import annotations

import time
from collections.abc import Callable

from mhnos_runtime.supervisor.loop import Loop

DEADLINE_SECONDS = 20.0


def until(loop: Loop, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_SECONDS

    def look() -> None:
        assert time.monotonic() < end
        if condition():
            loop.stop()
        else:
            loop.after(0, look)

    loop.after(0, look)
    loop.run()


def turn(loop: Loop) -> None:
    """All that is ready, and then one flood."""
    until(loop, lambda: True)
