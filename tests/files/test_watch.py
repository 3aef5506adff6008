"""Watches on real directories: what is told of every operation, and of what is hostile. The view of a client
that is only told must be the truth."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mhnos_runtime.errors import InvalidRequest, NotFound, Refused
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.ignore import USUAL
from mhnos_runtime.files.watch import FileWatch
from mhnos_runtime.files.watchtable import Budget
from tests.files.watched import Watched, found, named, truth

# Operations


def test_a_line_that_is_added_is_told_with_the_version_that_the_file_has(top: Path, either: Watched) -> None:
    (top / "a").write_text("one\n")
    assert found(either) == {"/a": "created"}
    with (top / "a").open("a") as file:
        file.write("two\n")
    assert found(either) == {"/a": "changed"}
    assert either.view == truth(top)
    os.chmod(top / "a", 0o600)
    assert found(either) == {"/a": "changed"}
    os.unlink(top / "a")
    assert found(either) == {"/a": "removed"}
    assert either.view == {}


def test_a_file_that_is_replaced_by_a_rename_has_changed(top: Path, either: Watched) -> None:
    (top / "a").write_text("one\n")
    found(either)
    (top / ".mhnos-push-0123").write_text("two\n")
    os.rename(top / ".mhnos-push-0123", top / "a")
    assert found(either) == {"/a": "changed"}
    assert either.view == truth(top)


def test_one_that_has_a_temporary_name_meanwhile_was_removed_there(top: Path, watched: Watched) -> None:
    """Somebody who listed the directory in that moment knows of it."""
    (top / "a~").write_text("one\n")
    os.rename(top / "a~", top / "a")
    assert named(watched.news()) == {"/a~": "removed", "/a": "created"}


def test_a_file_that_has_no_name_yet_is_told_when_it_gets_one(top: Path, either: Watched) -> None:
    """Each file that was written with O_TMPFILE was told with a removed one, "#" and its inode number."""
    fd = os.open(top, os.O_TMPFILE | os.O_WRONLY, 0o644)
    os.write(fd, b"one")
    os.fchmod(fd, 0o600)
    assert found(either) == {}
    folder = os.open(top, os.O_PATH)
    os.link(f"/proc/self/fd/{fd}", "a", dst_dir_fd=folder, follow_symlinks=True)
    os.close(fd)
    os.close(folder)
    assert found(either) == {"/a": "created"}
    (top / "#12").write_text("x")
    assert found(either) == {"/#12": "created"}
    os.unlink(top / "#12")
    assert found(either) == {"/#12": "removed"}


def test_unfinished_files_of_the_runtime_are_never_told(top: Path, either: Watched) -> None:
    (top / ".mhnos-push-1").write_text("x")
    (top / ".mhnos-push-2").mkdir()
    (top / ".mhnos-push-2" / "a").write_text("x")
    assert found(either) == {}


def test_nothing_is_lost_in_directories_that_are_made_with_their_content(top: Path, watched: Watched) -> None:
    program = (
        "import os\n"
        "for i in range(200):\n"
        "    os.makedirs(f'n{i}/m/o')\n"
        "    for path in ('m/o/f', 'm/g'): open(f'n{i}/{path}', 'w').write('x')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=top)
    while process.poll() is None:
        watched.news()
    watched.news()
    assert len(watched.view) == 1000
    assert watched.view == truth(top)


def test_a_directory_that_is_moved_is_followed(top: Path, either: Watched) -> None:
    os.makedirs(top / "a" / "b" / "c")
    (top / "a" / "b" / "c" / "f").write_text("one")
    found(either)
    os.rename(top / "a" / "b", top / "z")
    assert found(either) == {
        "/a/b": "removed",
        **dict.fromkeys(("/z", "/z/c", "/z/c/f"), "created"),
    }
    (top / "z" / "c" / "f").write_text("two")
    assert found(either) == {"/z/c/f": "changed"}
    os.rename(top / "z", top / "a" / "b")
    (top / "a" / "b" / "c" / "g").write_text("three")
    found(either)
    os.unlink(top / "a" / "b" / "c" / "f")
    assert found(either) == {"/a/b/c/f": "removed"}
    assert either.view == truth(top)


def test_one_that_is_moved_out_is_gone_and_tells_nothing(top: Path, tmp_path: Path, either: Watched) -> None:
    os.makedirs(top / "a" / "b")
    (top / "a" / "b" / "f").write_text("one")
    found(either)
    os.rename(top / "a", tmp_path / "outside")
    assert found(either) == {"/a": "removed"}
    (tmp_path / "outside" / "b" / "f").write_text("two")
    assert found(either) == {}
    os.rename(tmp_path / "outside", top / "back")
    found(either)
    assert either.view == truth(top)


def test_directories_that_are_swapped_are_told_whole(top: Path, either: Watched) -> None:
    for name in "ab":
        (top / name / "in").mkdir(parents=True)
        (top / name / "in" / name).write_text(name)
    found(either)
    os.rename(top / "a", top / "c")
    os.rename(top / "b", top / "a")
    os.rename(top / "c", top / "b")
    found(either)
    assert either.view == truth(top)
    (top / "a" / "in" / "b").write_text("new")
    assert found(either) == {"/a/in/b": "changed"}


def test_one_that_was_deleted_and_made_again_is_watched_again(top: Path, either: Watched) -> None:
    """Its inode may have the same number."""
    for content in ("one", "two", "three"):
        shutil.rmtree(top / "a", ignore_errors=True)
        (top / "a").mkdir()
        (top / "a" / content).write_text(content)
    found(either)
    assert either.view == truth(top)
    (top / "a" / "more").write_text("x")
    assert found(either) == {"/a/more": "created"}


def test_a_file_in_place_of_a_directory_and_the_other_way_round(top: Path, either: Watched) -> None:
    (top / "a").mkdir()
    (top / "a" / "f").write_text("x")
    found(either)
    shutil.rmtree(top / "a")
    (top / "a").write_text("now a file")
    found(either)
    assert either.view == truth(top)
    os.unlink(top / "a")
    (top / "a").mkdir()
    (top / "a" / "g").write_text("x")
    found(either)
    assert either.view == truth(top)


def test_links_fifos_and_sockets_are_told_and_never_opened(
    top: Path, tmp_path: Path, either: Watched
) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key").write_text("x")
    os.symlink(tmp_path / "secrets", top / "link")
    os.symlink(".", top / "loop")
    os.mkfifo(top / "fifo")
    assert found(either) == dict.fromkeys(("/link", "/loop", "/fifo"), "created")
    assert [either.view[path][0] for path in ("/link", "/fifo")] == ["link", "other"]
    (tmp_path / "secrets" / "more").write_text("x")
    assert found(either) == {}


def test_names_that_are_not_utf8_and_a_folder_called_workspace(top: Path, either: Watched) -> None:
    os.mkdir(os.fsencode(top) + b"/\xff")
    Path(os.fsdecode(os.fsencode(top) + b"/\xff/in")).write_text("x")
    (top / "workspace").mkdir()
    (top / "workspace" / "a").write_text("x")
    told = found(either)
    assert told == dict.fromkeys(
        ("/\udcff", "/\udcff/in", "/workspace/workspace", "/workspace/workspace/a"), "created"
    )


# What is passed over


def test_what_is_ignored_is_neither_told_nor_watched(top: Path, space: Workspace) -> None:
    (top / "node_modules" / "a").mkdir(parents=True)
    with Watched(space, ignore=[*USUAL, "*.log", "!keep.log", "/build/"]) as watched:
        assert len(watched.watch._watched) == 1
        for name in ("node_modules/a/b", "x.log", "y.tmp"):
            (top / name).write_text("x")
        for name in ("build", "src", ".git"):
            (top / name).mkdir()
        (top / "src" / "build").mkdir()
        (top / "keep.log").write_text("x")
        os.unlink(top / "x.log")
        told = dict.fromkeys(("/src", "/src/build", "/keep.log"), "created")
        assert named(watched.news()) == told
        assert named(watched.scanned()) == {}
        assert len(watched.watch._watched) == 3


def test_a_file_that_becomes_an_ignored_directory_is_gone(top: Path, space: Workspace) -> None:
    (top / "build").write_text("x")
    with Watched(space, ignore=["build/"]) as watched:
        os.unlink(top / "build")
        (top / "build").mkdir()
        assert named(watched.news()) == {"/build": "removed"}


# Where the directory is


def test_only_a_directory_of_the_workspace_can_be_watched(
    top: Path, tmp_path: Path, space: Workspace
) -> None:
    (top / "file").write_text("x")
    os.symlink(tmp_path, top / "out")
    for path, error in (
        ("/none", NotFound),
        ("/file", InvalidRequest),
        ("/out", Refused),
        ("/../x", Refused),
    ):
        with pytest.raises(error):
            Watched(space, path)


def test_paths_begin_at_the_top_of_the_workspace(top: Path, space: Workspace) -> None:
    (top / "a" / "b").mkdir(parents=True)
    os.symlink("a", top / "link")
    for path in ("/a/b", "link/b", "/workspace/a/b"):
        with Watched(space, path) as watched:
            (top / "a" / "b" / "f").write_text("x")
            (top / "a" / "beside").write_text("x")
            assert list(named(watched.news())) == [watched.watch.path + "/f"]
            os.unlink(top / "a" / "b" / "f")


def test_a_grant_for_a_folder_watches_in_it_alone(top: Path, space: Workspace) -> None:
    (top / "mine" / "in").mkdir(parents=True)
    (top / "yours").mkdir()
    os.symlink("../yours", top / "mine" / "link")
    mine = space.limited(["/mine"])
    for path in ("/", "/yours", "/mine/link"):
        with pytest.raises(Refused):
            Watched(mine, path)
    with Watched(mine, "/mine/in") as watched:
        os.rename(top / "mine", top / "other")
        with pytest.raises((NotFound, Refused)):
            watched.news()


@pytest.mark.parametrize("what", ["removed", "moved", "replaced", "moved above", "a link"])
def test_a_directory_that_is_not_at_its_path_any_more_ends_its_watch(
    top: Path, space: Workspace, what: str
) -> None:
    (top / "a" / "b").mkdir(parents=True)
    with Watched(space, "/a/b") as watched:
        if what == "removed":
            os.rmdir(top / "a" / "b")
        elif what == "moved above":
            os.rename(top / "a", top / "c")
        else:
            os.rename(top / "a" / "b", top / "a" / "c")
        if what == "replaced":
            (top / "a" / "b").mkdir()
        elif what == "a link":
            os.symlink("/", top / "a" / "b")
        with pytest.raises(NotFound):
            watched.news()
        with pytest.raises(NotFound):
            watched.scanned()


def test_a_scan_is_no_news(top: Path, watched: Watched) -> None:
    """So it leads to no further one."""
    (top / "a/b").mkdir(parents=True)
    (top / "a/b/file").write_text("x")
    watched.until("/a/b/file", "created")
    watched.news()
    assert named(watched.scanned()) == {}
    assert select.select([watched.watch], [], [], 0)[0] == []
    assert named(watched.news()) == {}


def test_its_move_or_end_is_news(top: Path, space: Workspace) -> None:
    """So nobody waits for the next scan."""
    for removed in (True, False):
        (top / "a" / "b").mkdir(parents=True)
        with Watched(space, "/a/b") as watched:
            if removed:
                os.rmdir(top / "a" / "b")
                os.rmdir(top / "a")
            else:
                os.rename(top / "a", top / "c")
            assert watched.watch._inotify is not None
            assert watched.watch._inotify.read()


def test_the_folder_of_the_workspace_is_removed_and_put_back(top: Path, space: Workspace) -> None:
    with Watched(space) as watched:
        shutil.rmtree(top)
        top.mkdir()
        with pytest.raises(NotFound):
            watched.scanned()


# Races


@pytest.mark.timeout(0)
def test_a_link_that_takes_the_place_of_a_directory_shows_nothing_outside(
    top: Path, tmp_path: Path, watched: Watched, rounds: Iterator[int]
) -> None:
    """A process swaps a directory and a link to one outside, while it is looked at."""
    outside = tmp_path / "outside"
    for folder in (top / "real", outside):
        (folder / "deep").mkdir(parents=True)
    (outside / "deep" / "secret").write_text("x")
    os.symlink(outside, top / "link")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(top / "real", top / "spare")
            os.rename(top / "link", top / "real")
            os.rename(top / "real", top / "link")
            os.rename(top / "spare", top / "real")
            (top / "real" / "deep" / "f").write_text("x")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in rounds:
            watched.news()
            watched.scanned()
            assert not [path for path in watched.view if "secret" in path]
    finally:
        stop.set()
        thread.join()
    watched.news()
    watched.scanned()
    assert watched.view == truth(top)


def test_what_was_given_up_in_the_middle_leaves_no_descriptor(top: Path, space: Workspace) -> None:
    for number in range(200):
        (top / str(number)).mkdir()
    watch = FileWatch(space, "/", (), Budget())
    steps = watch.begin()
    for _ in range(2):
        next(steps)
    del steps
    watch.close()
    watch.close()
