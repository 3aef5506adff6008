"""Trees of any depth, walked and removed by descriptors, while programs move what is walked."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from mhnos_runtime.errors import InvalidRequest, LimitReached, MhnosError, Unavailable
from mhnos_runtime.files import descent
from mhnos_runtime.files.descent import Descent, remove_tree
from tests.files.driving import drive, give_up_after, paths

DEPTH = 10_000


@pytest.fixture
def top(root: Path) -> Iterator[int]:
    opened = os.open(root, os.O_RDONLY)
    yield opened
    os.close(opened)


def deep(root: Path, depth: int) -> None:
    """`a/a/a…`, deeper than any path can say."""
    here = os.open(root, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("a", dir_fd=here)
        below = os.open("a", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("leaf", os.O_CREAT, dir_fd=here))
    os.close(here)


def test_a_tree_deeper_than_descriptors_and_recursion(root: Path, top: int) -> None:
    deep(root, DEPTH)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, limit[1]), limit[1]))
    try:
        drive(remove_tree(top, b"a", "/a"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert os.listdir(root) == []


def test_all_kinds_go_and_what_links_lead_to_stays(root: Path, top: int, outside: Path) -> None:
    (root / "t/d/e").mkdir(parents=True)
    (root / "t/d/file").touch()
    (root / "kept").write_text("kept")
    (root / "t/link").symlink_to("../kept")
    (root / "t/out").symlink_to("../../ws-secret")
    (root / "t/d/dangling").symlink_to("nowhere")
    os.mkfifo(root / "t/fifo")
    os.link(root / "kept", root / "t/hard")
    os.mkdir(os.fsencode(root) + b"/t/\xff")
    drive(remove_tree(top, b"t", "/t"))
    assert paths(root) == ["kept"]
    assert (root / "kept").read_text() == "kept"


def test_a_link_itself(root: Path, top: int, outside: Path) -> None:
    (root / "link").symlink_to("../ws-secret")
    drive(remove_tree(top, b"link", "/link"))
    assert os.listdir(root) == []


def test_another_directory_than_the_one_that_was_meant(root: Path, top: int) -> None:
    (root / "a/kept").mkdir(parents=True)
    with pytest.raises(Unavailable):
        drive(remove_tree(top, b"a", "/a", expected=os.stat(root)))
    assert paths(root) == ["a", "a/kept"]


def test_a_directory_moved_out_from_under_the_walk(root: Path, top: int, outside: Path) -> None:
    """Its `..` is then a folder that nobody asked to remove."""
    (root / "t/a/b").mkdir(parents=True)
    (root / "other").mkdir()
    (root / "other/kept").touch()
    with Descent(top, b"t", "/t") as walk:
        walk.down(b"a")
        walk.down(b"b")
        (root / "t/a/b").rename(root / "other/b")
        with pytest.raises(Unavailable):
            walk.up()
    assert (root / "other/kept").exists()


def test_what_is_put_into_it_meanwhile_goes_too(root: Path, top: int) -> None:
    (root / "t/a").mkdir(parents=True)
    steps = remove_tree(top, b"t", "/t")
    added = 0
    for _ in steps:
        if added < 20 and (root / "t/a").exists():
            (root / f"t/a/{added}").touch()
            added += 1
    assert added
    assert os.listdir(root) == []


def test_somebody_who_never_stops_is_told_of(root: Path, top: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descent, "MAX_AGAIN", 5)
    (root / "t").mkdir()

    def removed() -> None:
        for number, _ in enumerate(remove_tree(top, b"t", "/t")):
            (root / f"t/{number}").touch()

    with pytest.raises(InvalidRequest) as caught:
        removed()
    assert caught.value.code == "not-empty"


def test_permissions_are_taken_only_where_that_is_asked_for(root: Path, top: int) -> None:
    (root / "t/closed").mkdir(parents=True)
    (root / "t/closed/file").touch()
    for path in ("t/closed", "t"):
        (root / path).chmod(0o400)
    if os.geteuid() != 0:
        with pytest.raises(OSError, match="denied"):
            drive(remove_tree(top, b"t", "/t"))
    drive(remove_tree(top, b"t", "/t", force=True))
    assert os.listdir(root) == []


def test_another_file_system_is_not_entered(root: Path, top: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a real one in test_tree.py, where root may mount it."""
    (root / "t/mounted").mkdir(parents=True)
    (root / "t/mounted/kept").touch()
    inode = (root / "t/mounted").stat().st_ino
    monkeypatch.setattr(descent, "_identity", lambda s: (int(s.st_ino == inode), s.st_ino))
    with pytest.raises(MhnosError, match="Another file system"):
        drive(remove_tree(top, b"t", "/t"))
    assert (root / "t/mounted/kept").exists()


def test_names_that_wait_are_bounded(root: Path, top: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descent, "MAX_NAME_BYTES_WAITING", 100)
    for number in range(60):
        (root / f"t/{number:02}").mkdir(parents=True)
    with pytest.raises(LimitReached):
        drive(remove_tree(top, b"t", "/t"))


@pytest.mark.parametrize("count", range(0, 40, 3))
def test_given_up_in_the_middle_it_leaves_no_descriptor(root: Path, top: int, count: int) -> None:
    for number in range(5):
        (root / f"t/{number}/a/b").mkdir(parents=True)
    give_up_after(remove_tree(top, b"t", "/t"), count)
