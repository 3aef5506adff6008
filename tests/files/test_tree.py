"""Listing, looking, making, moving, copying and removing: what each does, and what it refuses."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from mhnos_runtime.files import tree
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.draft import Condition
from mhnos_runtime.files.trash import Trash
from mhnos_runtime.files.version import version_of
from tests.files.driving import drive, give_up_after, paths
from tests.files.filing import Files, code, tree_of


class TestListing:
    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 1000])
    def test_by_the_bytes_of_names_also_those_that_are_not_utf8(
        self, files: Files, root: Path, limit: int
    ) -> None:
        names = [
            b"a",
            b"B",
            b"\xff",
            b"\xc3\xa9",
            b"\xc3",
            b"a\xffb",
            b"z",
            b"\xf0\x9f\x98\x80",
            b"\\xff",
            b"~",
        ]
        for name in names:
            (Path(os.fsdecode(os.fsencode(root) + b"/" + name))).touch()
        (root / ".mhnos-push-1").touch()
        listed = files.list(limit=limit)
        assert [each.path for each in listed] == [
            "/" + name.decode(errors="backslashreplace") for name in sorted(names)
        ]
        opaque = {each.path for each in listed if each.opaque}
        assert opaque == {"/\\xff", "/\\xc3", "/a\\xffb"}

    def test_each_kind_is_shown_and_none_is_followed(self, files: Files, root: Path) -> None:
        (root / "d").mkdir()
        (root / "f").write_bytes(b"12345")
        (root / "l").symlink_to("../ws-secret/canary")
        os.mkfifo(root / "p")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(root / "s"))
            listed = {each.path: each for each in files.list()}
        assert {path: (each.kind, each.size) for path, each in listed.items()} == {
            "/d": ("directory", 0),
            "/f": ("file", 5),
            "/l": ("link", 0),
            "/p": ("other", 0),
            "/s": ("other", 0),
        }
        assert listed["/l"].target == "../ws-secret/canary"

    def test_below_a_folder(self, files: Files, root: Path) -> None:
        (root / "a/b").mkdir(parents=True)
        (root / "a/b/c").touch()
        assert [each.path for each in files.list("a/./b/../b/")] == ["/a/b/c"]

    def test_a_page_ends_where_paths_are_long(
        self, files: Files, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(30):
            (root / f"{number:0200}").touch()
        monkeypatch.setattr(tree, "MAX_PAGE_BYTES", 1000)
        page = drive(tree.list_page(files.workspace, "/", None, 5000))
        assert len(page.entries) == 5
        assert len(files.names()) == 30

    def test_what_goes_meanwhile_is_left_out(
        self, files: Files, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in "abc":
            (root / name).touch()
        steps = tree.list_page(files.workspace, "/", None, 10)
        next(steps)
        (root / "b").unlink()
        assert [each.path for each in drive(steps).entries] == ["/a", "/c"]

    @pytest.mark.parametrize(("path", "expected"), [("/gone", "not-found"), ("/f", "invalid-argument")])
    def test_what_is_no_directory(self, files: Files, root: Path, path: str, expected: str) -> None:
        (root / "f").touch()
        assert code(files.list, path) == expected

    @pytest.mark.timeout(600)
    def test_a_large_directory_costs_a_page(
        self, files: Files, root: Path, request: pytest.FixtureRequest
    ) -> None:
        """With --long, a million entries."""
        count = 1_000_000 if request.config.getoption("--long") else 20_000
        fd = os.open(root, os.O_RDONLY)
        for number in range(count):
            os.mknod(f"{number:07}", dir_fd=fd)
        os.close(fd)
        tracemalloc.start()
        try:
            page = drive(tree.list_page(files.workspace, "/", b"0000010", 1000))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert [page.entries[0].path, page.entries[-1].path] == ["/0000011", "/0001010"]
        print(f"a page of {count} entries: peak {peak >> 10} KiB")
        assert peak < 4 << 20

    def test_versions_are_good_for_what_was_just_written(self, files: Files, root: Path) -> None:
        for turn in range(20):
            (root / "a").write_text(str(turn % 10))
            shown = files.list()[0].version
            (root / "a").write_text(str((turn + 1) % 10))
            assert files.list()[0].version != shown


class TestLooking:
    def test_a_link_or_what_it_leads_to(self, files: Files, root: Path) -> None:
        (root / "f").write_bytes(b"x")
        (root / "l").symlink_to("f")
        assert files.look("/l")[0].kind == "file"
        assert files.look("/l", follow=False)[0].target == "f"
        assert files.look("/")[0].kind == "directory"

    def test_links_in_the_middle_are_followed_either_way(self, files: Files, root: Path) -> None:
        (root / "d").mkdir()
        (root / "d/l").symlink_to("nowhere")
        (root / "to").symlink_to("d")
        assert files.look("/to/l", follow=False)[0].kind == "link"

    def test_the_hash_is_of_the_version(self, files: Files, root: Path) -> None:
        content = os.urandom(3_000_001)
        (root / "f").write_bytes(content)
        entry, digest = files.look("/f", sha256=True)
        assert digest == hashlib.sha256(content).hexdigest()
        assert entry.version == version_of((root / "f").stat())
        assert files.look("/", sha256=True)[1] is None

    def test_a_file_that_changes_while_it_is_read_is_read_again(self, files: Files, root: Path) -> None:
        (root / "f").write_bytes(b"x" * 3_000_000)
        steps = tree.look(files.workspace, "/f", sha256=True)
        next(steps)
        (root / "f").write_bytes(b"y")
        assert drive(steps)[1] == hashlib.sha256(b"y").hexdigest()

    def test_one_that_does_not_stop_changing(self, files: Files, root: Path) -> None:
        (root / "f").write_bytes(b"x" * 3_000_000)

        def hash_it() -> None:
            for number, _ in enumerate(tree.look(files.workspace, "/f", sha256=True)):
                os.utime(root / "f", ns=(number, number))

        assert code(hash_it) == "changed"

    def test_a_fifo_is_looked_at_and_never_opened(self, files: Files, root: Path) -> None:
        os.mkfifo(root / "p")
        assert files.look("/p", sha256=True)[1] is None


class TestMaking:
    def test_one(self, files: Files, root: Path) -> None:
        assert files.make("/d").kind == "directory"
        assert code(files.make, "/d") == "already-exists"
        assert code(files.make, "/x/y") == "not-found"

    def test_with_parents_it_may_be_there(self, files: Files, root: Path) -> None:
        assert files.make("/a/b/c", parents=True).path == "/a/b/c"
        assert files.make("/a/b/c", parents=True).path == "/a/b/c"
        (root / "f").touch()
        assert code(files.make, "/f", parents=True) == "invalid-argument"

    def test_on_a_full_disk(self, root: Path, outside: Path, trash: Trash) -> None:
        with Workspace(root, min_free=1 << 60) as workspace:
            assert code(Files(workspace, trash).make, "/d") == "disk-full"


class TestMoving:
    def test_a_tree(self, files: Files, root: Path) -> None:
        tree_of(root)
        (root / "to").mkdir()
        moved = files.move("/t", "/to/new")
        assert (moved.entry.path, moved.entry.kind, moved.trash) == ("/to/new", "directory", None)
        assert (root / "to/new/d/file").read_text() == "t"
        assert not (root / "t").exists()

    def test_a_link_and_not_what_it_leads_to(self, files: Files, root: Path) -> None:
        (root / "f").touch()
        (root / "l").symlink_to("f")
        assert files.move("/l", "/m").entry.kind == "link"
        assert (root / "f").is_file()

    def test_onto_itself_is_nothing(self, files: Files, root: Path) -> None:
        (root / "f").write_text("f")
        assert files.move("/f", "/f", replace=True).trash is None
        assert (root / "f").read_text() == "f"

    @pytest.mark.parametrize("there", ["file", "tree", "link", "fifo"])
    def test_never_over_something(self, files: Files, root: Path, there: str) -> None:
        (root / "f").write_text("f")
        make: dict[str, Callable[[], object]] = {
            "file": (root / "to").touch,
            "tree": lambda: tree_of(root, "to"),
            "link": lambda: (root / "to").symlink_to("nowhere"),
            "fifo": lambda: os.mkfifo(root / "to"),
        }
        make[there]()
        inode = (root / "to").lstat().st_ino
        assert code(files.move, "/f", "/to") == "already-exists"
        moved = files.move("/f", "/to", replace=True)
        assert (root / "to").read_text() == "f"
        files.restore(moved.trash, "/back")
        assert (root / "back").lstat().st_ino == inode

    def test_a_file_by_a_tree_and_back(self, files: Files, root: Path) -> None:
        tree_of(root)
        (root / "f").write_text("f")
        moved = files.move("/t", "/f", replace=True)
        assert (root / "f/d/file").read_text() == "t"
        assert not (root / "t").exists()
        assert files.restore(moved.trash, "/f2").kind == "file"

    @pytest.mark.parametrize("target", ["/t/d/new", "/t/new", "/t/d/../d/new"])
    def test_not_into_itself(self, files: Files, root: Path, target: str) -> None:
        tree_of(root)
        for act in (files.move, files.copy):
            assert code(act, "/t", target) == "invalid-argument"
        assert paths(root) == ["t", "t/d", "t/d/file", "t/link"]

    def test_not_into_itself_through_a_link(self, files: Files, root: Path) -> None:
        tree_of(root)
        (root / "l").symlink_to("t/d")
        for act in (files.move, files.copy):
            assert code(act, "/t", "/l/new") == "invalid-argument"

    def test_not_over_a_directory_that_it_is_in(self, files: Files, root: Path) -> None:
        tree_of(root)
        for act in (files.move, files.copy):
            assert code(act, "/t/d", "/t", replace=True) == "invalid-argument"
        assert paths(root) == ["t", "t/d", "t/d/file", "t/link"]

    @pytest.mark.parametrize("act", ["move", "remove"])
    def test_the_top_stays(self, files: Files, act: str) -> None:
        args = ("/", "/x") if act == "move" else ("/",)
        assert code(getattr(files, act), *args) == "invalid-argument"

    def test_only_the_version_that_was_seen(self, files: Files, root: Path) -> None:
        (root / "f").write_text("1")
        seen = Condition(frozenset({files.look("/f")[0].version}))
        (root / "f").write_text("2")
        assert code(files.move, "/f", "/g", seen) == "changed"
        assert code(files.remove, "/f", seen) == "changed"
        assert (root / "f").read_text() == "2"

    @pytest.mark.parametrize("act", ["move", "copy", "make", "restore"])
    def test_no_name_that_is_never_listed(self, files: Files, root: Path, act: str) -> None:
        (root / "f").write_text("f")
        (root / "g").write_text("g")
        item = files.remove("/g")
        acts: dict[str, Callable[[], object]] = {
            "move": lambda: files.move("/f", "/.mhnos-push-x"),
            "copy": lambda: files.copy("/f", "/.mhnos-push-x"),
            "make": lambda: files.make("/.mhnos-push-x"),
            "restore": lambda: files.restore(item, "/.mhnos-push-x"),
        }
        assert code(acts[act]) == "invalid-argument"
        assert os.listdir(root) == ["f"]

    def test_where_names_cannot_be_exchanged(
        self, files: Files, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tree, "exchange", lambda *_: False)
        (root / "f").write_text("f")
        tree_of(root)
        moved = files.move("/f", "/t", replace=True)
        assert (root / "t").read_text() == "f"
        assert files.restore(moved.trash, "/back").kind == "directory"

    def test_a_trash_that_takes_nothing_replaces_nothing(self, files: Files, root: Path) -> None:
        (root / "f").write_text("f")
        (root / "to").write_text("to")
        files.trash._path.parent.joinpath("trash").write_text("in the way")
        for act in (files.move, files.copy):
            assert code(act, "/f", "/to", replace=True) == "unavailable"
        assert {name: (root / name).read_text() for name in os.listdir(root)} == {"f": "f", "to": "to"}

    def test_without_a_trash_what_stood_there_is_gone(
        self, workspace: Workspace, root: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        files = Files(workspace, Trash(tmp_path_factory.mktemp("s") / "trash", 0.0))
        for act in (files.copy, files.move):
            (root / "f").write_text("f")
            tree_of(root, "to")
            act("/f", "/to", replace=True)
            assert (root / "to").read_text() == "f"
            (root / "to").unlink()
        assert os.listdir(root) == []


class TestCopying:
    def test_a_tree(self, files: Files, root: Path) -> None:
        tree_of(root)
        moved, done = files.copy("/t", "/c")
        assert (moved.entry.path, moved.trash, done.copied, done.bytes) == ("/c", None, 4, 1)
        assert paths(root / "c") == paths(root / "t")

    def test_over_something(self, files: Files, root: Path) -> None:
        tree_of(root)
        (root / "c").write_text("old")
        assert code(files.copy, "/t", "/c") == "already-exists"
        moved, _ = files.copy("/t", "/c", replace=True)
        assert (root / "c/d/file").exists()
        files.restore(moved.trash, "/old")
        assert (root / "old").read_text() == "old"

    def test_onto_itself(self, files: Files, root: Path) -> None:
        (root / "f").touch()
        assert code(files.copy, "/f", "/f", replace=True) == "already-exists"

    def test_a_link_is_copied_as_it_is_written(self, files: Files, root: Path) -> None:
        (root / "l").symlink_to("../ws-secret/canary")
        files.copy("/l", "/m")
        assert os.readlink(root / "m") == "../ws-secret/canary"

    def test_a_fifo_is_not_copied(self, files: Files, root: Path) -> None:
        os.mkfifo(root / "p")
        assert code(files.copy, "/p", "/q") == "invalid-argument"

    @pytest.mark.parametrize("count", range(0, 60, 4))
    @pytest.mark.parametrize("replace", [False, True])
    def test_given_up_it_leaves_no_half(self, files: Files, root: Path, count: int, replace: bool) -> None:
        tree_of(root)
        for number in range(8):
            (root / f"t/{number}").write_text("x")
        if replace:
            (root / "c").write_text("old")
        given_up = give_up_after(tree.copy(files.workspace, files.trash, "/t", "/c", replace=replace), count)
        if not given_up:
            assert paths(root / "c") == paths(root / "t")
        elif replace and (root / "c").is_file():
            assert (root / "c").read_text() == "old"
        elif (root / "c").exists():
            assert paths(root / "c") == paths(root / "t")
        assert not [name for name in os.listdir(root) if name.startswith(".mhnos")]

    def test_on_a_full_disk_nothing_is_left(self, root: Path, outside: Path, trash: Trash) -> None:
        tree_of(root)
        with Workspace(root, min_free=1 << 60) as workspace:
            assert code(Files(workspace, trash).copy, "/t", "/c") == "disk-full"
        assert os.listdir(root) == ["t"]


class TestRemoving:
    def test_into_the_trash(self, files: Files, root: Path) -> None:
        tree_of(root)
        item = files.remove("/t", recursive=True)
        assert os.listdir(root) == []
        files.restore(item)
        assert paths(root) == ["t", "t/d", "t/d/file", "t/link"]

    def test_a_directory_with_something_in_it_is_meant(self, files: Files, root: Path) -> None:
        tree_of(root)
        (root / "empty").mkdir()
        for outright in (False, True):
            assert code(files.remove, "/t", outright=outright) == "not-empty"
        assert files.remove("/empty") is not None
        assert files.remove("/t", recursive=True, outright=True) is None
        assert os.listdir(root) == []

    def test_a_link_and_not_what_it_leads_to(self, files: Files, root: Path) -> None:
        tree_of(root)
        (root / "l").symlink_to("t")
        (root / "m").symlink_to("t")
        files.remove("/l", recursive=True)
        files.remove("/m", recursive=True, outright=True)
        assert paths(root) == ["t", "t/d", "t/d/file", "t/link"]

    def test_a_fifo_and_a_socket(self, files: Files, root: Path) -> None:
        os.mkfifo(root / "p")
        files.restore(files.remove("/p"))
        assert stat.S_ISFIFO((root / "p").stat().st_mode)
        files.remove("/p", outright=True)

    def test_what_is_not_there(self, files: Files) -> None:
        assert code(files.remove, "/x") == "not-found"
        assert code(files.move, "/x", "/y") == "not-found"
        assert code(files.copy, "/x", "/y") == "not-found"
