"""Watched directories on an event loop: who is told, when somebody looks, and what ends with whom."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mhnos_runtime.errors import LimitReached, NotFound
from mhnos_runtime.files.changes import Changes
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.inotify import OVERFLOW, Event, Inotify
from mhnos_runtime.files.watch import FileWatch
from mhnos_runtime.server.files import watching as module
from mhnos_runtime.server.files.watching import Key, Watcher, Watchers
from mhnos_runtime.server.files.work import FileWork

PATIENCE_SECONDS = 20
ALL = Key(None, "/", ())
MANY = """
import os
for number in range(10):
    os.mkdir(str(number))
    for other in range(2000):
        os.close(os.open(f"{number}/{other}", os.O_CREAT | os.O_WRONLY, 0o644))
"""


def refuse(_queue: Inotify) -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


class Told:
    """A listener."""

    def __init__(self) -> None:
        self.all = Changes()
        self.times: list[float] = []
        self.why: str | None = None
        self._news = asyncio.Event()

    def changed(self, changes: Changes) -> None:
        self.all.merge(changes)
        self.times.append(time.monotonic())
        self._news.set()

    def ended(self, why: str) -> None:
        self.why = why
        self._news.set()

    async def until(self, *paths: str) -> None:
        while not self.all.named.keys() >= set(paths):
            await self.more()

    async def until_hint(self) -> None:
        while not self.all.rescan:
            await self.more()

    async def until_ended(self) -> str:
        while self.why is None:
            await self.more()
        return self.why

    async def more(self) -> None:
        self._news.clear()
        await asyncio.wait_for(self._news.wait(), PATIENCE_SECONDS)


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "top").mkdir()
    return tmp_path / "top"


@pytest.fixture
def space(top: Path) -> Iterator[Workspace]:
    with Workspace(top) as workspace:
        yield workspace


@pytest.fixture
async def watchers() -> AsyncIterator[Watchers]:
    work = FileWork()
    watchers = Watchers(work)
    yield watchers
    watchers.close()
    # Tasks that were cancelled close what they hold.
    await asyncio.sleep(0)
    await asyncio.to_thread(work.close)


def inotify_descriptors() -> int:
    return sum(_links_to_inotify(number) for number in os.listdir("/proc/self/fd"))


def _links_to_inotify(number: str) -> bool:
    try:
        return "inotify" in os.readlink(f"/proc/self/fd/{number}")
    except FileNotFoundError:
        return False


async def until_closed() -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while inotify_descriptors():  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.001)


async def test_all_who_watch_the_same_share_one_watch(
    top: Path, space: Workspace, watchers: Watchers
) -> None:
    told = [Told() for _ in range(4)]
    (top / "in").mkdir()
    first, second = await asyncio.gather(*(watchers.enter(space, ALL, each) for each in told[:2]))
    other = await watchers.enter(space, ALL._replace(path="/in"), told[2])
    ignoring = await watchers.enter(space, ALL._replace(ignore=("a",)), told[3])
    assert first is second
    assert len({first, other, ignoring}) == 3
    assert inotify_descriptors() == 3
    (top / "a").write_text("x")
    (top / "in" / "b").write_text("x")
    await asyncio.gather(told[0].until("/a", "/in/b"), told[1].until("/a", "/in/b"), told[2].until("/in/b"))
    await told[3].until("/in/b")
    assert "/a" not in told[2].all.named
    assert "/a" not in told[3].all.named
    watchers.leave(first, told[0])
    watchers.leave(first, told[0])
    (top / "c").write_text("x")
    await told[1].until("/c")
    assert "/c" not in told[0].all.named
    for watcher, listener in ((first, told[1]), (other, told[2]), (ignoring, told[3])):
        watchers.leave(watcher, listener)
    await until_closed()
    again = await watchers.enter(space, ALL, told[0])
    assert again is not first


async def test_a_flood_is_told_in_portions(top: Path, space: Workspace, watchers: Watchers) -> None:
    told = Told()
    await watchers.enter(space, ALL, told)

    def flood() -> None:
        until = time.monotonic() + 1
        while time.monotonic() < until:
            (top / "a").write_text(str(time.monotonic()))
        (top / "last").touch()

    await asyncio.to_thread(flood)
    await told.until("/last")
    gaps = [after - before for before, after in zip(told.times, told.times[1:], strict=False)]
    assert all(gap > 0.9 * module.PAUSE_SECONDS for gap in gaps)


async def test_nobody_looks_while_nothing_happens(
    top: Path, space: Workspace, watchers: Watchers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also not while there is work for another watch, twice with a pause in between."""
    for name in ("quiet", "busy"):
        (top / name).mkdir()
    quiet, busy = Told(), Told()
    await watchers.enter(space, ALL._replace(path="/quiet"), quiet)
    await watchers.enter(space, ALL._replace(path="/busy"), busy)
    looks: list[str] = []
    for name in ("take", "scan", "settle"):
        monkeypatch.setattr(FileWatch, name, counted(name, looks))
    for name in "abc":
        (top / "busy" / name).write_text("x")
        await busy.until(f"/busy/{name}")
    assert set(looks) == {"/busy"}


def counted(name: str, looks: list[str]) -> object:
    real = getattr(FileWatch, name)

    def count(watch: FileWatch) -> object:
        looks.append(watch.path)
        return real(watch)

    return count


async def test_what_the_kernel_does_not_tell_is_found_by_a_scan(
    top: Path, space: Workspace, watchers: Watchers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file system of another machine."""
    monkeypatch.setattr(module, "SCAN_SECONDS", 0.05)
    monkeypatch.setattr(module, "SCAN_SHARE", 1.0)
    monkeypatch.setattr(Inotify, "read", lambda _self: [])
    monkeypatch.setattr(Inotify, "fileno", lambda _self: -1)
    told = Told()
    await watchers.enter(space, ALL, told)
    (top / "a").write_text("x")
    await told.until("/a")
    os.makedirs(top / "b" / "c")
    (top / "b" / "c" / "d").write_text("x")
    await told.until("/b", "/b/c", "/b/c/d")


async def test_lost_news_lead_to_a_scan_and_a_hint(
    top: Path, space: Workspace, watchers: Watchers, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    await watchers.enter(space, ALL, told)
    read = Inotify.read
    monkeypatch.setattr(Inotify, "read", lambda self: read(self) and [Event(-1, OVERFLOW, b"")])
    (top / "a").mkdir()
    (top / "a" / "b").write_text("x")
    await told.until_hint()
    monkeypatch.undo()
    told.all = Changes()
    (top / "a" / "b").write_text("y")
    await told.until("/a/b")


async def test_without_the_kernels_news_it_polls_and_says_so_once(
    top: Path,
    space: Workspace,
    watchers: Watchers,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(Inotify, "__init__", refuse)
    monkeypatch.setattr(module, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(module, "POLL_SHARE", 1.0)
    (top / "in").mkdir()
    told, other = Told(), Told()
    with caplog.at_level(logging.WARNING, logger="mhnos"):
        watcher = await watchers.enter(space, ALL, told)
        await watchers.enter(space, ALL._replace(path="/in"), other)
        assert watcher.by == "polling"
        (top / "in" / "a").write_text("x")
        await asyncio.gather(told.until("/in/a"), other.until("/in/a"))
    assert [record.message for record in caplog.records] == ["files are watched by polling"]


@pytest.mark.parametrize("polling", [False, True])
async def test_more_files_at_once_than_the_kernel_keeps_news_of_are_a_hint(
    top: Path, space: Workspace, watchers: Watchers, polling: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if polling:
        monkeypatch.setattr(Inotify, "__init__", refuse)
        monkeypatch.setattr(module, "POLL_SECONDS", 0.1)
    told = Told()
    await watchers.enter(space, ALL, told)
    making = await asyncio.create_subprocess_exec(sys.executable, "-c", MANY, cwd=top)
    assert await making.wait() == 0
    await told.until_hint()
    told.all = Changes()
    # Whatever is still to be found of the many: this is told, by name or as a hint.
    (top / "9" / "more").write_text("x")
    while not (told.all.rescan or "/9/more" in told.all.named):
        await told.more()


async def test_what_cannot_be_watched_is_refused_to_all_who_ask(
    top: Path, space: Workspace, watchers: Watchers
) -> None:
    key = ALL._replace(path="/none")
    results = await asyncio.gather(
        *(watchers.enter(space, key, Told()) for _ in range(3)), return_exceptions=True
    )
    assert [type(each) for each in results] == [NotFound] * 3
    (top / "none").mkdir()
    await watchers.enter(space, key, Told())


async def test_one_that_leaves_while_it_begins_does_not_end_it_for_others(
    top: Path, space: Workspace, watchers: Watchers
) -> None:
    for number in range(500):
        (top / str(number)).mkdir()
    told = Told()
    leaving = asyncio.create_task(watchers.enter(space, ALL, Told()))
    staying = asyncio.create_task(watchers.enter(space, ALL, told))
    await asyncio.sleep(0)
    leaving.cancel()
    await staying
    (top / "7" / "a").write_text("x")
    await told.until("/7/a")
    alone = asyncio.create_task(watchers.enter(space, ALL._replace(ignore=("x",)), Told()))
    await asyncio.sleep(0)
    alone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await alone


@pytest.mark.parametrize("end", ["removed", "moved", "the workspace"])
async def test_all_are_told_of_its_end_behind_what_came_before(
    top: Path, space: Workspace, watchers: Watchers, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENCE_SECONDS", 0.1)
    monkeypatch.setattr(module, "SCAN_SHARE", 1.0)
    (top / "a").mkdir()
    key = ALL if end == "the workspace" else ALL._replace(path="/a")
    told = [Told(), Told()]
    for each in told:
        await watchers.enter(space, key, each)
    if end == "moved":
        os.rename(top / "a", top / "b")
    else:
        shutil.rmtree(top / "a" if end == "removed" else top)
    for each in told:
        assert "removed, moved or replaced" in await each.until_ended()
    await until_closed()


async def test_too_much_below_it_ends_it(
    top: Path, space: Workspace, watchers: Watchers, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    await watchers.enter(space, ALL, told)
    monkeypatch.setattr(watchers._budget, "take", lambda _size: False)
    (top / "a").mkdir()
    assert "Too many directories" in await told.until_ended()


async def test_what_the_machine_lacks_for_a_while_ends_nothing(
    top: Path, space: Workspace, watchers: Watchers, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    await watchers.enter(space, ALL, told)
    monkeypatch.setattr(module, "POLL_SECONDS", 0.05)

    def fail(*_: object) -> None:
        raise LimitReached("The runtime has too many open files", code="unavailable")

    failed = asyncio.Event()
    loop = asyncio.get_running_loop()
    real = Workspace.open_dir

    def lacking(*arguments: object, **more: object) -> object:
        if not failed.is_set():
            loop.call_soon_threadsafe(failed.set)
            fail()
        return real(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Workspace, "open_dir", lacking)
    (top / "a").write_text("x")
    await asyncio.wait_for(failed.wait(), PATIENCE_SECONDS)
    await told.until_hint()
    assert told.why is None


async def test_a_defect_ends_one_watch_and_is_logged(
    top: Path, space: Workspace, watchers: Watchers, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    (top / "a").mkdir()
    await watchers.enter(space, ALL, told)
    monkeypatch.setattr(FileWatch, "_note", lambda *_: 1 / 0)
    (top / "a" / "b").write_text("x")
    assert "defect" in await told.until_ended()


def test_scans_take_their_share_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """Due: after so many seconds, counted from the last one; later where that took long."""
    watcher = Watcher.__new__(Watcher)

    class Watch:
        lost = False
        by = "inotify"
        exact = True

    watcher._watch = Watch()  # type: ignore[assignment]
    watcher._scanned_at, watcher._active_at = 1000.0, None
    number = 1
    watcher._number = lambda: number

    def due(cost: float, *, active: float | None = None, **state: object) -> float:
        watcher._cost, watcher._active_at = cost, active
        for name, value in {"lost": False, "by": "inotify", "exact": True, **state}.items():
            setattr(Watch, name, value)
        return watcher._scan_due() - 1000.0

    assert due(0.1) == 60
    assert due(2.0) == 200
    assert due(0.01, active=1010.0) == 12
    assert due(0.2, active=1010.0) == 20
    assert due(2.0, lost=True) == 2
    assert due(0.01, by="polling") == 2
    assert due(1.0, by="polling") == 20
    assert due(1.0, by="polling", exact=False) == 60
    # Each of many watches of a large tree takes its part of that share only.
    number = 32
    assert due(2.0) == 6400
    assert due(1.0, by="polling") == 640
    assert due(0.2, lost=True) == pytest.approx(6.4)
