"""Directories that are watched, each once for all who watch the same: when to look, and who is told. Knows
steps and times; no message and no connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, Protocol

from mhnos_runtime.errors import MhnosError, Unavailable
from mhnos_runtime.files.changes import Changes
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.watch import FileWatch
from mhnos_runtime.files.watchtable import Budget
from mhnos_runtime.observe import logs
from mhnos_runtime.server.files.work import FileWork, Job

#: From what is told to the next look: what comes meanwhile becomes one message.
PAUSE_SECONDS = 0.1
#: As long where changes are only hints to list everything again.
HINT_PAUSE_SECONDS = 5.0
#: A tick of the clock that files get their times from is 1 to 10 ms (CONFIG_HZ).
TICK_SECONDS = 0.004
#: How long a file that changes with each tick is waited for.
SETTLE_SECONDS = 0.05
#: Everything is compared so often, and after so much silence that follows news, and each so many seconds
#: where the kernel tells nothing.
SCAN_SECONDS = 60.0
SILENCE_SECONDS = 2.0
POLL_SECONDS = 2.0
#: But scans of large trees, of all watches together, may only take this share of one CPU.
SCAN_SHARE = 0.01
POLL_SHARE = 0.05

_log = logs.get("server")


class Listener(Protocol):
    """Somebody who is told, on the event loop. ended: why nothing more comes."""

    def changed(self, changes: Changes, /) -> None: ...

    def ended(self, why: str, /) -> None: ...


class Key(NamedTuple):
    """What makes two watches the same. paths: of the grant; ignore: lines."""

    paths: tuple[str, ...] | None
    path: str
    ignore: tuple[str, ...]


class Watchers:
    """All watches of one server."""

    def __init__(self, work: FileWork) -> None:
        self._work = work
        self._budget = Budget()
        self._watchers: dict[Key, Watcher] = {}
        self._polls = False

    async def enter(self, workspace: Workspace, key: Key, listener: Listener) -> Watcher:
        """Be told from now on, until `leave`. workspace: as the grant may have it. Raises MhnosError."""
        watcher = self._watchers.get(key)
        if watcher is None:
            watch = FileWatch(workspace, key.path, key.ignore, self._budget)
            watcher = self._watchers[key] = Watcher(
                key, watch, self._work, self._polling, self._over, self._watchers.__len__
            )
        watcher.listeners.add(listener)
        try:
            await watcher.begun()
        except BaseException:
            self.leave(watcher, listener)
            raise
        return watcher

    def leave(self, watcher: Watcher, listener: Listener) -> None:
        """A second time changes nothing."""
        watcher.listeners.discard(listener)
        if not watcher.listeners:
            self._over(watcher)
            watcher.close()

    def close(self) -> None:
        for watcher in list(self._watchers.values()):
            watcher.listeners.clear()
            self._over(watcher)
            watcher.close()

    def _over(self, watcher: Watcher) -> None:
        if self._watchers.get(watcher.key) is watcher:
            del self._watchers[watcher.key]

    def _polling(self, why: OSError) -> None:
        """A watch does without the kernel: said once, since others will, too."""
        if not self._polls:
            self._polls = True
            _log.warning(
                "files are watched by polling",
                problem=why.strerror,
                hint="raise fs.inotify.max_user_watches and fs.inotify.max_user_instances (sysctl)",
            )


class Watcher:
    """One watched directory, from its first listener to its last, or until it is gone."""

    def __init__(
        self,
        key: Key,
        watch: FileWatch,
        work: FileWork,
        polling: Callable[[OSError], None],
        over: Callable[[Watcher], None],
        number: Callable[[], int],
    ) -> None:
        """polling: called when the kernel cannot tell what changes. over: when nothing more comes. number: of
        all watches."""
        self.key = key
        self.listeners: set[Listener] = set()
        self._watch, self._polling, self._over, self._number = watch, polling, over, number
        self._loop = asyncio.get_running_loop()
        self._begun: asyncio.Future[None] = self._loop.create_future()
        # Those who waited for it may have left.
        self._begun.add_done_callback(lambda begun: begun.cancelled() or begun.exception())
        self._scanned_at = self._not_before = self._loop.time()
        self._cost = 0.0
        self._active_at: float | None = None
        self._task = self._loop.create_task(self._run(work))

    @property
    def path(self) -> str:
        return self._watch.path

    @property
    def by(self) -> Literal["inotify", "polling"]:
        return self._watch.by

    async def begun(self) -> None:
        """All that happens from here on is told. Raises MhnosError where it cannot be watched."""
        await asyncio.shield(self._begun)

    def close(self) -> None:
        self._task.cancel()

    async def _run(self, work: FileWork) -> None:
        try:
            with work.begin(self._watch.close) as job:
                await self._scan_all(job, self._watch.begin())
                self._begun.set_result(None)
                await self._follow(job)
        except MhnosError as error:
            self._end(error)
        except Exception:
            _log.exception("defect in a watch of files", path=self.path)
            self._end(Unavailable("The watch failed by a defect of the server", hint="watch it again"))

    def _end(self, error: MhnosError) -> None:
        self._over(self)
        if not self._begun.done():
            self._begun.set_exception(error)
            return
        self._tell()
        for each in list(self.listeners):
            each.ended(error.message)

    async def _follow(self, job: Job) -> None:
        scan: Iterator[None] | None = None
        while True:
            if scan is None:
                await self._news()
            try:
                if self._loop.time() >= self._not_before:
                    await self._look(job)
                if scan is None and self._loop.time() >= self._scan_due():
                    scan, self._cost, self._active_at = self._watch.scan(), 0.0, None
                if scan is not None and await self._scan_on(job, scan):
                    scan = None
                    await self._settle(job)
                    self._tell()
            except MhnosError as error:
                if not error.retry:
                    raise
                # The machine lacks something, descriptors for one: look at everything once it has it.
                scan, self._watch.lost, self._scanned_at = None, True, self._loop.time() + POLL_SECONDS

    async def _news(self) -> None:
        """Return when there are some, or a look is due."""
        due, fd, heard = self._scan_due(), self._watch.fileno(), asyncio.Event()
        if self._watch.young:
            due = min(due, self._not_before)
        await asyncio.sleep(min(self._not_before, due) - self._loop.time())
        if fd >= 0:
            self._loop.add_reader(fd, heard.set)
        try:
            async with asyncio.timeout_at(due):
                await heard.wait()
            self._active_at = self._loop.time()
        except TimeoutError:
            pass
        finally:
            if fd >= 0:
                self._loop.remove_reader(fd)

    async def _look(self, job: Job) -> None:
        await _all(job, self._watch.take())
        await self._settle(job)
        self._tell()
        self._not_before = self._loop.time() + (PAUSE_SECONDS if self._watch.exact else HINT_PAUSE_SECONDS)

    async def _settle(self, job: Job) -> None:
        """Wait for the clock's next tick, so that the versions that are told are certain."""
        until = self._loop.time() + SETTLE_SECONDS
        while self._watch.young and self._loop.time() < until:
            await asyncio.sleep(TICK_SECONDS)
            await _all(job, self._watch.settle())

    async def _scan_on(self, job: Job, scan: Iterator[None]) -> bool:
        """One turn of it; whether it was the last."""
        start = self._loop.time()
        _, done = await job.turn(scan)
        self._scanned_at = self._loop.time()
        self._cost += self._scanned_at - start
        return done

    async def _scan_all(self, job: Job, scan: Iterator[None]) -> None:
        while not await self._scan_on(job, scan):
            pass

    def _scan_due(self) -> float:
        watch, at, cost = self._watch, self._scanned_at, self._cost * max(1, self._number())
        if watch.lost:
            return at + max(PAUSE_SECONDS, cost)
        if watch.by == "polling":
            return at + max(POLL_SECONDS if watch.exact else SCAN_SECONDS, cost / POLL_SHARE)
        rest = cost / SCAN_SHARE
        due = at + max(SCAN_SECONDS, rest)
        return due if self._active_at is None else min(due, max(self._active_at + SILENCE_SECONDS, at + rest))

    def _tell(self) -> None:
        if self._watch.unwatched is not None:
            self._polling(self._watch.unwatched)
        changes = self._watch.taken()
        if changes:
            self._active_at = self._loop.time()
            for each in list(self.listeners):
                each.changed(changes)


async def _all(job: Job, steps: Iterator[None]) -> None:
    done = False
    while not done:
        _, done = await job.turn(steps)
