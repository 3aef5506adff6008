"""A client that lists once and is then only told knows the truth, whatever a real process does with the
files: by the kernel's news, by looking alone, and where news are lost."""

from __future__ import annotations

import errno
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.inotify import OVERFLOW, Event, Inotify
from tests.files import disorder
from tests.files.watched import Watched, failing, run, truth

# As long as --fuzz-seconds says.
pytestmark = pytest.mark.timeout(0)

OPERATIONS = 400


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Workspace]:
    (tmp_path / "top").mkdir()
    (tmp_path / "outside").mkdir()
    with Workspace(tmp_path / "top") as workspace:
        yield workspace


@contextmanager
def disorder_in(space: Workspace, dice: random.Random) -> Iterator[Callable[[], bool]]:
    """A process at work; gives a function that says whether it still is."""
    outside = Path(space.root).with_name("outside")
    program = [disorder.__file__, str(dice.randrange(1 << 30)), str(OPERATIONS), str(outside)]
    with subprocess.Popen([sys.executable, *program], cwd=space.root) as process:
        try:
            yield lambda: process.poll() is None
        finally:
            process.kill()


def test_by_news_alone(space: Workspace, dice: random.Random, rounds: Iterator[int]) -> None:
    """It may list everything at any moment, too."""
    with Watched(space) as watched:
        for _ in rounds:
            with disorder_in(space, dice) as at_work:
                while at_work():
                    if dice.random() < 0.2:
                        watched.list_again()
                    watched.news()
            watched.news()
            assert watched.view == truth(watched.top)


def test_by_news_while_a_scan_is_under_way(
    space: Workspace, dice: random.Random, rounds: Iterator[int]
) -> None:
    """Scans stop wherever they are while news are looked at."""
    with Watched(space) as watched:
        for _ in rounds:
            with disorder_in(space, dice) as at_work:
                while at_work():
                    for _ in watched.watch.scan():
                        if dice.random() < 0.3:
                            watched.news()
                        if dice.random() < 0.1:
                            watched.list_again()
            watched.news()
            assert watched.view == truth(watched.top)


def test_by_looking_alone(
    space: Workspace, dice: random.Random, rounds: Iterator[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Inotify, "__init__", failing(errno.EMFILE))
    with Watched(space) as watched:
        for _ in rounds:
            with disorder_in(space, dice) as at_work:
                while at_work():
                    watched.scanned()
            watched.scanned()
            assert watched.view == truth(watched.top)


def test_where_news_are_lost(
    space: Workspace, dice: random.Random, rounds: Iterator[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel says it: what did not fit into its queue is dropped, and that is told."""
    read = Inotify.read

    def lossy(self: Inotify) -> list[Event]:
        events = read(self)
        return [*events[:3], Event(-1, OVERFLOW, b"")] if len(events) > 3 else events

    with Watched(space) as watched:
        for _ in rounds:
            with disorder_in(space, dice) as at_work, monkeypatch.context() as patch:
                patch.setattr(Inotify, "read", lossy)
                while at_work():
                    watched.news()
                    if watched.watch.lost:
                        watched.scanned()
                watched.news()
            while watched.watch.lost:
                watched.scanned()
            watched.news()
            assert watched.view == truth(watched.top)


def test_where_watches_run_out_in_the_middle(
    space: Workspace, dice: random.Random, rounds: Iterator[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in rounds:
        with monkeypatch.context() as patch, Watched(space) as watched:
            patch.setattr(Inotify, "add", failing(errno.ENOSPC, dice.randrange(30)))
            with disorder_in(space, dice) as at_work:
                while at_work():
                    watched.news()
            if watched.watch.by == "inotify":
                watched.news()
            else:
                run(watched.watch.take())
                watched.scanned()
            assert watched.view == truth(watched.top)
