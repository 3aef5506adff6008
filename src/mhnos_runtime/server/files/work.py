"""Threads for steps that block, round-robin over those for whom they are done. Knows iterators, not what they
do."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Self, TypeVar

from mhnos_runtime.errors import LimitReached, MhnosError
from mhnos_runtime.files.steps import GivenUp, Steps

#: Two wait for disks at the same time; more would only take the interpreter from the event loop in turn.
THREADS = 2
#: How long one job has a thread while others wait for it.
TURN_SECONDS = 0.01
#: Jobs of one owner that are under way: each holds some descriptors.
MAX_JOBS = 64

T = TypeVar("T")


class FileWork:
    """Jobs of all owners: connections, and clients of HTTP. Each does a little and goes to the end of its
    owner's queue, and owners take turns. So a job that is long, such as the pull of a deep tree, costs the
    others a turn, and not a thread; and somebody with many jobs is no more in the way than one with one."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, "files")
        self._lock = threading.Lock()
        # The owner whose turn is next comes first. None of the queues is empty.
        self._waiting: dict[object, deque[Callable[[], None]]] = {}
        self._jobs: dict[object, int] = {}

    def begin(self, close: Callable[[], Iterator[object] | None], owner: object = None) -> Job:
        """A job. close: called once in a thread, when nothing of the job runs any more; where it takes long,
        it returns the steps of that. owner: for whom it is; None: for nobody else. Raises LimitReached."""
        owner = object() if owner is None else owner
        with self._lock:
            count = self._jobs.get(owner, 0)
            if count >= MAX_JOBS:
                raise LimitReached(
                    f"{MAX_JOBS} requests about files are under way", hint="wait for their answers"
                )
            self._jobs[owner] = count + 1
        return Job(partial(self._put, owner), close, partial(self._forget, owner))

    async def run(self, steps: Steps[T], owner: object = None) -> T:
        """What `steps` return. If the caller is cancelled, GivenUp is raised in them, and they are driven to
        their end all the same, so that they can clear up. Raises what they raise, and LimitReached."""
        with self.begin(partial(_give_up, steps), owner) as job:
            return await job.result(steps)

    def close(self) -> None:
        """Let what has begun end; nothing may be begun any more."""
        self._pool.shutdown()

    def _put(self, owner: object, act: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        with self._lock:
            self._waiting.setdefault(owner, deque()).append(partial(_carry_out, future, act))
        self._pool.submit(self._serve)
        return future

    def _serve(self) -> None:
        with self._lock:
            owner, calls = next(iter(self._waiting.items()))
            call = calls.popleft()
            del self._waiting[owner]
            if calls:
                self._waiting[owner] = calls
        call()

    def _forget(self, owner: object) -> None:
        with self._lock:
            self._jobs[owner] -= 1
            if not self._jobs[owner]:
                del self._jobs[owner]


class Job:
    """Work that is done in turns, one at a time. Leaving the context closes it, also during a turn."""

    def __init__(
        self,
        put: Callable[[Callable[[], object]], Future[object]],
        close: Callable[[], Iterator[object] | None],
        ended: Callable[[], None],
    ) -> None:
        self._put = put
        self._close = close
        self._ended = ended
        self._left = threading.Event()
        # Held during a turn, and by who closes it.
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def turn(self, steps: Iterator[T]) -> tuple[list[T], bool]:
        """What `steps` give in one turn, and whether they have ended. A step that waits for a disk is waited
        for. Raises what they raise."""
        found: list[T] = []
        done = await self._turn(lambda: found.append(next(steps)))
        return found, done

    async def all(self, steps: Iterator[T]) -> list[T]:
        """What `steps` give, in as many turns as it takes."""
        found, done = await self.turn(steps)
        while not done:
            more, done = await self.turn(steps)
            found += more
        return found

    async def result(self, steps: Steps[T]) -> T:
        """What `steps` return, in as many turns as it takes."""
        returned: list[T] = []

        def step() -> None:
            try:
                next(steps)
            except StopIteration as end:
                returned.append(end.value)
                raise

        while not await self._turn(step):
            pass
        return returned[0]

    def close(self) -> None:
        """Go no further than the present step."""
        if not self._left.is_set():
            self._left.set()
            # Where the server ends, the system closes what is open.
            with suppress(RuntimeError):
                self._put(self._finish)

    async def _turn(self, step: Callable[[], object]) -> bool:
        return bool(await asyncio.wrap_future(self._put(partial(self._advance, step))))

    def _advance(self, step: Callable[[], object]) -> bool:
        """Whether there are no more steps, or none must be taken."""
        try:
            with self._lock:
                return self._steps_of_a_turn(step)
        finally:
            if self._left.is_set():
                self._finish()

    def _steps_of_a_turn(self, step: Callable[[], object]) -> bool:
        until = time.monotonic() + TURN_SECONDS
        while not self._left.is_set():
            try:
                step()
            except StopIteration:
                break
            if time.monotonic() >= until:
                return False
        return True

    def _finish(self) -> None:
        """Close it once. Where a turn is under way, that one does it at its end: its step may wait for a disk
        that has hung, and no other thread waits with it."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._closed:
                return
            self._closed = True
            rest = self._close()
        finally:
            self._lock.release()
        if rest is None:
            self._ended()
        else:
            self._clear_up(rest)

    def _clear_up(self, rest: Iterator[object]) -> None:
        until, more = time.monotonic() + TURN_SECONDS, False
        try:
            for _ in rest:
                more = time.monotonic() >= until
                if more:
                    break
        finally:
            if not more:
                self._ended()
        if more:
            with suppress(RuntimeError):
                self._put(partial(self._clear_up, rest))


def _give_up(steps: Steps[object]) -> Iterator[None]:
    # What goes wrong while they clear up nobody waits for; a step that has ended raises GivenUp itself.
    with suppress(GivenUp, StopIteration, MhnosError, OSError):
        steps.throw(GivenUp())
        yield
        yield from steps


def _carry_out(future: Future[T], act: Callable[[], T]) -> None:
    if future.set_running_or_notify_cancel():
        try:
            result = act()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)
