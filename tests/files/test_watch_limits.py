"""Watches where there is too much, or too little: names, news, watches, descriptors, memory, and time between
two ticks of the clock."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from mhnos_runtime import bounds
from mhnos_runtime.errors import LimitReached, Refused
from mhnos_runtime.files import watch as module
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.inotify import Inotify
from mhnos_runtime.files.watchtable import FILE_BYTES, FOLDER_BYTES, Budget
from tests.files.watched import Watched, failing, named, run, truth


def test_more_changes_than_are_named_are_told_as_a_hint(top: Path, watched: Watched) -> None:
    for number in range(bounds.NAMED_CHANGES + 1):
        (top / str(number)).touch()
    changes = watched.news()
    assert changes.rescan
    assert not changes.named
    assert watched.view == truth(top)
    (top / "one").touch()
    assert named(watched.news()) == {"/one": "created"}


def test_news_that_the_kernel_dropped_are_found_by_a_scan(top: Path, watched: Watched) -> None:
    """Its queue holds fs.inotify.max_queued_events, which nobody reads here meanwhile."""
    queue = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    (top / "a").write_text("x")
    (top / "gone").write_text("x")
    watched.news()
    # Two names in turn: the kernel joins equal news that follow each other.
    names = [os.fsencode(top / "a"), os.fsencode(top / "gone")]
    for number in range(queue + 10):
        os.utime(names[number % 2])
    os.unlink(top / "gone")
    os.makedirs(top / "new" / "deep")
    (top / "new" / "deep" / "f").write_text("x")
    watched.news()
    lost = watched.watch.lost
    assert lost
    assert watched.scanned().rescan
    lost = watched.watch.lost
    assert not lost
    assert watched.view == truth(top)
    (top / "new" / "deep" / "f").write_text("y")
    assert named(watched.news()) == {"/new/deep/f": "changed"}


@pytest.mark.parametrize("after", [0, 1, 5])
def test_without_room_for_watches_it_goes_on_by_looking(
    top: Path, space: Workspace, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """fs.inotify.max_user_watches, at the beginning and later."""
    for number in range(3):
        (top / str(number)).mkdir()
    monkeypatch.setattr(Inotify, "add", failing(errno.ENOSPC, after))
    with Watched(space) as watched:
        os.makedirs(top / "more" / "and" / "more")
        for folder in ("0", "2", "more/and/more"):
            (top / folder / "f").write_text("x")
        watched.news()
        assert watched.watch.by == "polling"
        assert watched.watch.fileno() == -1
        watched.scanned()
        assert watched.view == truth(top)


def test_a_directory_that_cannot_be_read_is_told_and_entered_once_it_can(
    top: Path, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Inotify, "add", failing(errno.EACCES))
        (top / "closed").mkdir()
        (top / "closed" / "f").write_text("x")
        assert named(watched.news()) == {"/closed": "created"}
        assert named(watched.scanned()) == {}
    os.chmod(top / "closed", 0o700)
    assert named(watched.news()) == {"/closed/f": "created"}
    (top / "closed" / "g").write_text("x")
    assert named(watched.news()) == {"/closed/g": "created"}


def test_one_that_cannot_be_read_cannot_be_watched(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Inotify, "add", failing(errno.EACCES))
    with pytest.raises(Refused):
        Watched(space)


def test_without_descriptors_nothing_is_forgotten(
    top: Path, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    (top / "a").mkdir()
    watched.news()
    (top / "a" / "f").write_text("x")
    with monkeypatch.context() as patch:
        patch.setattr(watched.watch, "_open", failing(errno.EMFILE))
        assert named(watched.news()) == {}
        assert watched.watch.lost
    watched.scanned()
    assert watched.view == truth(top)


def test_more_files_than_may_be_known_are_told_as_hints(top: Path, space: Workspace) -> None:
    (top / "a").mkdir()
    for number in range(20):
        (top / "a" / str(number)).touch()
    budget = Budget(FOLDER_BYTES + 4 * FILE_BYTES)
    with Watched(space, budget=budget) as watched:
        assert not watched.watch.exact
        (top / "a" / "f").write_text("x")
        assert watched.news().rescan
        assert not watched.scanned()
        (top / "b").mkdir()
        with pytest.raises(LimitReached):
            watched.news()
    assert budget.take(FOLDER_BYTES + 4 * FILE_BYTES)


def test_memory_is_given_back_with_what_is_gone(top: Path, space: Workspace) -> None:
    size = 3 * FOLDER_BYTES + 30 * FILE_BYTES
    budget = Budget(size)
    with Watched(space, budget=budget) as watched:
        for name in ("a", "b", "c", "d", "e"):
            os.makedirs(top / name / "in")
            for number in range(20):
                (top / name / "in" / str(number)).touch()
            watched.news()
            shutil.rmtree(top / name)
            watched.news()
            assert watched.view == {}
        assert watched.watch.exact
        assert len(watched.watch._watched) == 1
    assert budget.take(size)


def test_looking_causes_no_news(top: Path, watched: Watched) -> None:
    os.makedirs(top / "a" / "b")
    (top / "a" / "f").write_text("x")
    watched.news()
    watched.scanned()
    assert watched.watch._inotify is not None
    assert watched.watch._inotify.read() == []


def test_a_file_that_changes_with_each_tick_is_told_all_the_same(
    top: Path, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its version is told again once it is certain."""
    (top / "a").write_text("x")
    with monkeypatch.context() as patch:
        patch.setattr(module, "is_settled", lambda _status, _now: False)
        run(watched.watch.take())
        assert named(watched.watch.taken()) == {"/a": "created"}
        run(watched.watch.settle())
        assert named(watched.watch.taken()) == {}
        assert watched.watch.young
    assert named(watched.news()) == {"/a": "changed"}
    assert not watched.watch.young
