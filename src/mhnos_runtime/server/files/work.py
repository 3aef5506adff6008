"""Threads for steps that block, round-robin over the jobs of all connections. Knows iterators, not what
they do."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Self, TypeVar

#: Two wait for disks at the same time; more would only take the interpreter from the event loop in turn.
THREADS = 2
#: How long one job has a thread while others wait for it.
TURN_SECONDS = 0.01

T = TypeVar("T")


class FileWork:
    """Jobs of all connections. Each does a little and goes to the end of the queue, so that one which is
    long, such as the pull of a deep tree, costs the others a turn, and not a thread."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, "files")

    def begin(self, close: Callable[[], None]) -> Job:
        """A job for one connection. close: called once in a thread, when nothing of the job runs any more."""
        return Job(self._pool, close)

    def close(self) -> None:
        """Let what has begun end; nothing may be begun any more."""
        self._pool.shutdown()


class Job:
    """Work that is done in turns, one at a time. Leaving the context closes it, also during a turn."""

    def __init__(self, pool: ThreadPoolExecutor, close: Callable[[], None]) -> None:
        self._pool = pool
        self._close = close
        self._left = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def turn(self, steps: Iterator[T]) -> tuple[list[T], bool]:
        """What `steps` give in one turn, and whether they have ended. A step that waits for a disk is waited
        for. Raises what they raise."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._advance, steps)

    async def all(self, steps: Iterator[T]) -> list[T]:
        """What `steps` give, in as many turns as it takes."""
        found, done = await self.turn(steps)
        while not done:
            more, done = await self.turn(steps)
            found += more
        return found

    def close(self) -> None:
        """Go no further than the present step."""
        if not self._left.is_set():
            self._left.set()
            # Where the server ends, the system closes what is open.
            with suppress(RuntimeError):
                self._pool.submit(self._finish)

    def _advance(self, steps: Iterator[T]) -> tuple[list[T], bool]:
        found: list[T] = []
        until = time.monotonic() + TURN_SECONDS
        with self._lock:
            while not self._left.is_set():
                try:
                    found.append(next(steps))
                except StopIteration:
                    break
                if time.monotonic() >= until:
                    return found, False
        return found, True

    def _finish(self) -> None:
        with self._lock:
            self._close()
