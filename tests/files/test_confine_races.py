"""A process that changes the workspace under every step: it may spoil a resolution, never lead it outside."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.errors import MhnosError, NotFound, Refused
from mhnos_runtime.files import rename
from mhnos_runtime.files.confine import Resolved, Workspace
from mhnos_runtime.files.push_pull import PushEntry, pull, push

INSIDE = b"inside"
ROUNDS = 3000


@contextlib.contextmanager
def hammering(change: Callable[[], object]) -> Iterator[Callable[[], int]]:
    """Runs `change` in a thread without pause; the yielded call says how often it has run."""
    stop, count = threading.Event(), [0]

    def work() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                change()
            count[0] += 1

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield lambda: count[0]
    finally:
        stop.set()
        thread.join()


def content(workspace: Workspace, path: str) -> bytes:
    with os.fdopen(workspace.open_file(path, os.O_RDONLY), "rb") as file:
        return file.read()


def read_or_refused(workspace: Workspace, path: str) -> bool:
    """True when it was read and is what is inside, False when the resolution was refused."""
    try:
        found = content(workspace, path)
    except MhnosError as error:
        if error.code not in ("outside-workspace", "not-found"):
            raise
        return False
    assert found == INSIDE
    return True


def swap_link_and_folder(root: Path, target: str) -> Callable[[], None]:
    """`/swap` is in turn a folder and a link to `target`, without ever being missing."""
    (root / "swap").mkdir()
    (root / "swap/canary").write_bytes(INSIDE)
    (root / "other").symlink_to(target)

    def change() -> None:
        exchange(root / "swap", root / "other")

    return change


def exchange(one: Path, two: Path) -> None:
    """Two names in one folder, as one step. In a gap between them whoever writes there makes a folder, and
    nothing is swapped any more: so these races were over after some tenths of a second."""
    folder = os.open(one.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        assert rename.exchange(os.fsencode(one.name), os.fsencode(two.name), folder, folder)
    finally:
        os.close(folder)


@pytest.mark.parametrize("target", ["../ws-secret", "{outside}"], ids=["relative", "absolute"])
def test_reading_through_a_link_that_comes_and_goes(
    workspace: Workspace, root: Path, outside: Path, target: str
) -> None:
    good = bad = 0
    with hammering(swap_link_and_folder(root, target.format(outside=outside))) as swaps:
        while (good + bad < ROUNDS or swaps() < ROUNDS) and good + bad < 100 * ROUNDS:
            if read_or_refused(workspace, "/swap/canary"):
                good += 1
            else:
                bad += 1
    assert good
    assert bad


def test_writing_through_a_link_that_comes_and_goes(workspace: Workspace, root: Path) -> None:
    """The fixture checks that nothing was made or changed outside."""
    with hammering(swap_link_and_folder(root, "../ws-secret")) as swaps:
        while swaps() < ROUNDS:
            push(
                workspace,
                [
                    PushEntry("/swap/canary", "file", [INSIDE]),
                    PushEntry("/swap/new/deep/file", "file", [INSIDE]),
                    PushEntry("/swap/folder", "directory", mtime_ms=1.0),
                ],
            )
            with contextlib.suppress(MhnosError):
                os.close(workspace.open_file("/swap/created", os.O_WRONLY | os.O_CREAT | os.O_TRUNC))


def test_a_file_that_turns_into_a_link_as_it_is_written(workspace: Workspace, root: Path) -> None:
    (root / "swap").write_bytes(INSIDE)
    (root / "other").symlink_to("../ws-secret/canary")
    with hammering(lambda: exchange(root / "swap", root / "other")) as swaps:
        while swaps() < ROUNDS:
            push(workspace, [PushEntry("/swap", "file", [INSIDE])])
            with contextlib.suppress(MhnosError):
                os.close(workspace.open_file("/swap", os.O_WRONLY | os.O_CREAT | os.O_TRUNC))


def test_pulling_while_folders_turn_into_links(workspace: Workspace, root: Path) -> None:
    (root / "kept").write_bytes(INSIDE)
    with hammering(swap_link_and_folder(root, "../ws-secret")) as swaps:
        while swaps() < ROUNDS:
            for item in pull(workspace, max_bytes=1000):
                assert b"".join(item.chunks()) in (b"", INSIDE)


def test_a_real_path_is_inside_or_refused(workspace: Workspace, root: Path) -> None:
    top = os.path.realpath(root)
    with hammering(swap_link_and_folder(root, "../ws-secret")) as swaps:
        while swaps() < ROUNDS:
            with contextlib.suppress(MhnosError):
                found = workspace.real_path("/swap/canary")
                assert found.startswith(top + "/")


def test_a_folder_moved_out_in_the_middle_of_a_walk(workspace: Workspace, root: Path, outside: Path) -> None:
    """Its own `..` is then outside; a walk that asked the kernel for `..` would read the canary."""
    (root / "a/b").mkdir(parents=True)
    (root / "canary").write_bytes(INSIDE)
    (root / "a/b/up").symlink_to("../canary")
    (root / "a/canary").write_bytes(INSIDE)

    def move_out_and_back() -> None:
        (root / "a/b").rename(outside / "b")
        (outside / "b").rename(root / "a/b")

    good = 0
    with hammering(move_out_and_back) as moves:
        while moves() < ROUNDS or not good:
            good += read_or_refused(workspace, "/a/b/up")


@pytest.fixture
def after_resolving(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes something happen once, between a walk (after `skip` others) and what is done with its result."""

    def arrange(*changes: Callable[[], object], skip: int = 0) -> None:
        todo, plain, walks = list(changes), workspace.resolve, itertools.count()

        @contextlib.contextmanager
        def resolve(*args: Any, **options: Any) -> Iterator[Resolved]:
            with plain(*args, **options) as place:
                if next(walks) == skip:
                    for change in todo:
                        change()
                yield place

        monkeypatch.setattr(workspace, "resolve", resolve)

    return arrange


class TestTheExactMoment:
    """The change comes just when it hurts most: no luck needed."""

    def test_a_deleted_file_whose_description_exists(
        self, workspace: Workspace, root: Path, after_resolving: Callable[..., None]
    ) -> None:
        """The kernel shows a deleted file as `name (deleted)`, which may exist as well."""
        (root / "a").write_bytes(b"old")
        (root / "a (deleted)").write_bytes(b"decoy")
        after_resolving((root / "a").unlink)
        with pytest.raises(NotFound):
            workspace.real_path("/a")

    def test_a_file_moved_out_has_no_real_path(
        self, workspace: Workspace, root: Path, outside: Path, after_resolving: Callable[..., None]
    ) -> None:
        (root / "a").write_bytes(b"x")
        after_resolving(lambda: (root / "a").rename(outside / "moved"))
        with pytest.raises(Refused):
            workspace.real_path("/a")
        (outside / "moved").unlink()

    @pytest.mark.parametrize("name", ["new", "canary"])
    def test_a_link_where_a_file_is_to_be_made(
        self, workspace: Workspace, root: Path, name: str, after_resolving: Callable[..., None]
    ) -> None:
        after_resolving(lambda: (root / "a").symlink_to(f"../ws-secret/{name}"))
        with pytest.raises(Refused) as caught:
            workspace.open_file("/a", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        assert caught.value.code == "outside-workspace"

    @pytest.mark.parametrize("make", ["link", "fifo"])
    def test_something_else_under_the_name_of_a_resolved_file(
        self, workspace: Workspace, root: Path, make: str, after_resolving: Callable[..., None]
    ) -> None:
        (root / "a").write_bytes(INSIDE)
        change = {
            "link": lambda: (root / "a").symlink_to("../ws-secret/canary"),
            "fifo": lambda: os.mkfifo(root / "a"),
        }
        after_resolving((root / "a").unlink, change[make])
        assert content(workspace, "/a") == INSIDE

    @pytest.mark.parametrize("existed", [True, False])
    def test_a_push_onto_a_name_that_became_a_link(
        self, workspace: Workspace, root: Path, existed: bool, after_resolving: Callable[..., None]
    ) -> None:
        """Opened writable or renamed through the link, the canary would change; its mode and date, too."""
        if existed:
            (root / "a").touch()
        after_resolving(
            lambda: (root / "a").unlink(missing_ok=True),
            lambda: (root / "a").symlink_to("../ws-secret/canary"),
        )
        assert push(workspace, [PushEntry("/a", "file", [b"new"], 1.0)]).errors == []
        assert (root / "a").read_bytes() == b"new"
        assert not (root / "a").is_symlink()

    def test_a_folder_that_became_a_link_before_it_is_dated(
        self, workspace: Workspace, root: Path, outside: Path, after_resolving: Callable[..., None]
    ) -> None:
        before = outside.stat().st_mtime_ns
        (root / "d").mkdir()
        after_resolving((root / "d").rmdir, lambda: (root / "d").symlink_to("../ws-secret"), skip=1)
        push(workspace, [PushEntry("/d", "directory", mtime_ms=1.0)])
        assert outside.stat().st_mtime_ns == before

    def test_a_folder_moved_out_before_its_dots_are_taken(
        self, workspace: Workspace, root: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The folder is moved out after it was opened and before its link's `..` is taken: no luck needed."""
        (root / "a/b").mkdir(parents=True)
        (root / "a/canary").write_bytes(INSIDE)
        (root / "a/b/up").symlink_to("../canary")
        plain = os.readlink

        def readlink(path: bytes, *, dir_fd: int | None = None) -> bytes:
            target = plain(path, dir_fd=dir_fd)
            if target == b"../canary":
                (root / "a/b").rename(outside / "b")
            return target

        with monkeypatch.context() as patch:
            patch.setattr(os, "readlink", readlink)
            assert content(workspace, "/a/b/up") == INSIDE
        (outside / "b").rename(root / "a/b")


def test_names_that_come_and_go_while_they_are_created(workspace: Workspace, root: Path) -> None:
    def come_and_go() -> None:
        (root / "x").touch()
        (root / "x").unlink()
        (root / "x").mkdir()
        (root / "x").rmdir()
        (root / "x").symlink_to("../ws-secret/new")
        (root / "x").unlink()

    with hammering(come_and_go) as rounds:
        while rounds() < ROUNDS:
            with contextlib.suppress(MhnosError):
                workspace.make_dirs("/x/y")
            with contextlib.suppress(MhnosError):
                os.close(workspace.open_file("/x", os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
            with contextlib.suppress(MhnosError):
                os.close(workspace.open_file("/x", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            with contextlib.suppress(OSError):
                (root / "x/y").rmdir()
                (root / "x").rmdir()


def test_many_threads_in_one_workspace(workspace: Workspace, root: Path) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for round_number in range(100):
                text = f"{number} {round_number}".encode()
                result = push(workspace, [PushEntry(f"/shared/deep/{number}/f", "file", [text])])
                assert result.errors == []
                assert content(workspace, f"/shared/deep/{number}/f") == text
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(os.listdir(root / "shared/deep")) == 8
