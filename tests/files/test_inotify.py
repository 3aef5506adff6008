"""The kernel's queue, read as it is: names of every length, numbers, and what it refuses."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from mhnos_runtime.files import inotify as module
from mhnos_runtime.files.inotify import Event, Inotify


@pytest.fixture
def queue() -> Iterator[Inotify]:
    made = Inotify()
    yield made
    made.close()


def add(queue: Inotify, path: Path, mask: int = module.NAMES) -> int:
    fd = os.open(path, os.O_PATH)
    try:
        return queue.add(fd, mask)
    finally:
        os.close(fd)


def test_names_of_every_length_come_in_order(queue: Inotify, tmp_path: Path) -> None:
    watch = add(queue, tmp_path)
    names = [b"x" * length for length in range(1, 256)]
    for name in names:
        os.mkdir(os.fsencode(tmp_path) + b"/" + name)
    events: list[Event] = []
    while more := queue.read():
        events += more
    assert [event.name for event in events] == names
    assert {event.watch for event in events} == {watch}
    assert {event.mask for event in events} == {module.CREATE | module.IS_DIRECTORY}
    assert queue.read() == []


def test_one_directory_has_one_watch_whatever_it_is_called(queue: Inotify, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    watch = add(queue, tmp_path / "a")
    os.rename(tmp_path / "a", tmp_path / "b")
    assert add(queue, tmp_path / "b") == watch
    queue.remove(watch)
    assert queue.read() == [Event(watch, module.IGNORED, b"")]
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        queue.remove(watch)


def test_only_directories_are_watched(queue: Inotify, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.symlink("/", tmp_path / "link")
    with pytest.raises(NotADirectoryError):
        add(queue, tmp_path / "file")
    link = os.open(tmp_path / "link", os.O_PATH | os.O_NOFOLLOW)
    try:
        with pytest.raises(OSError):  # noqa: PT011 - ENOTDIR or ELOOP
            queue.add(link, module.NAMES)
    finally:
        os.close(link)


def test_further_events_of_a_directory_are_added_to_the_first(queue: Inotify, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    watch = add(queue, tmp_path / "a")
    assert add(queue, tmp_path / "a", module.MOVE_SELF | module.MORE) == watch
    (tmp_path / "a" / "f").touch()
    os.rename(tmp_path / "a", tmp_path / "b")
    masks = [event.mask for event in queue.read()]
    assert masks[0] == module.CREATE
    assert masks[-1] & module.MOVE_SELF


def test_without_descriptors_there_is_none() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
            Inotify()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_its_close_is_its_end(queue: Inotify) -> None:
    queue.close()
    queue.close()
    assert queue.fileno() == -1
