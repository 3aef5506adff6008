"""A draft takes its target's place whole, under a condition, or leaves everything as it was."""

from __future__ import annotations

import os
import threading
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.errors import Conflict, InvalidRequest, LimitReached, MhnosError
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.draft import ANYTHING, Condition, Draft
from mhnos_runtime.files.version import version_of


def write(
    workspace: Workspace, path: str, content: bytes, condition: Condition = ANYTHING, **how: Any
) -> str:
    made = Draft(workspace, path, condition, how.pop("mode", None))
    try:
        made.write(content)
        return made.commit(**how).version
    except BaseException:
        made.drop()
        raise


def version(path: Path) -> str:
    return version_of(path.stat())


class TestConditions:
    def test_a_new_file_only_where_nothing_stands(self, workspace: Workspace, root: Path) -> None:
        write(workspace, "/new", b"first", Condition(absent=True))
        with pytest.raises(Conflict) as caught:
            write(workspace, "/new", b"second", Condition(absent=True))
        assert caught.value.code == "already-exists"
        assert (root / "new").read_bytes() == b"first"

    def test_only_the_version_that_was_read(self, workspace: Workspace, root: Path) -> None:
        first = write(workspace, "/a", b"1")
        second = write(workspace, "/a", b"2", Condition(frozenset({first})))
        with pytest.raises(Conflict) as caught:
            write(workspace, "/a", b"3", Condition(frozenset({first})))
        assert caught.value.code == "changed"
        write(workspace, "/a", b"4", Condition(frozenset({first, second})))
        assert (root / "a").read_bytes() == b"4"

    @pytest.mark.parametrize("condition", [Condition(exists=True), Condition(frozenset({"0" * 24}))])
    def test_what_is_not_there_has_no_version(
        self, workspace: Workspace, root: Path, condition: Condition
    ) -> None:
        with pytest.raises(Conflict) as caught:
            write(workspace, "/gone", b"x", condition)
        assert caught.value.code == "changed"
        assert os.listdir(root) == []

    def test_it_is_looked_at_again_directly_before_the_rename(self, workspace: Workspace, root: Path) -> None:
        (root / "a").write_bytes(b"1")
        made = Draft(workspace, "/a", Condition(frozenset({version(root / "a")})))
        made.write(b"mine")
        (root / "a").write_bytes(b"theirs")
        with pytest.raises(Conflict):
            made.commit()
        made.drop()
        assert (root / "a").read_bytes() == b"theirs"
        assert os.listdir(root) == ["a"]

    def test_it_was_absent_at_the_start(self, workspace: Workspace, root: Path) -> None:
        made = Draft(workspace, "/a", Condition(absent=True))
        made.write(b"mine")
        (root / "a").write_bytes(b"theirs")
        with pytest.raises(Conflict):
            made.commit()
        made.drop()
        assert (root / "a").read_bytes() == b"theirs"

    def test_of_many_that_create_one_wins(self, workspace: Workspace, root: Path) -> None:
        won, lost = list[int](), list[str]()
        barrier = threading.Barrier(8)

        def create(number: int) -> None:
            for turn in range(20):
                barrier.wait()
                try:
                    write(workspace, f"/{turn}", b"%d" % number, Condition(absent=True))
                    won.append(turn)
                except Conflict as error:
                    lost.append(error.code)

        threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(won) == list(range(20))
        assert lost == ["already-exists"] * 140
        assert len(os.listdir(root)) == 20


class TestWhatItBecomes:
    def test_created_or_replaced(self, workspace: Workspace) -> None:
        for created in (True, False):
            made = Draft(workspace, "/d/a")
            made.write(b"x")
            assert made.commit(durable=True).created is created

    def test_the_version_is_that_of_the_file(self, workspace: Workspace, root: Path) -> None:
        assert write(workspace, "/a", b"x", durable=True) == version(root / "a")

    def test_modes(self, workspace: Workspace, root: Path) -> None:
        write(workspace, "/a", b"x")
        assert (root / "a").stat().st_mode & 0o7777 == 0o644
        write(workspace, "/a", b"x", mode=0o4755)
        assert (root / "a").stat().st_mode & 0o7777 == 0o755
        write(workspace, "/a", b"x")
        assert (root / "a").stat().st_mode & 0o7777 == 0o755

    def test_mtime(self, workspace: Workspace, root: Path) -> None:
        write(workspace, "/a", b"x", mtime_ns=1_000_000_007)
        assert (root / "a").stat().st_mtime_ns == 1_000_000_007

    @pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["fifo", "directory"])
    def test_what_is_no_file_is_not_replaced(self, workspace: Workspace, root: Path, make: Any) -> None:
        make(root / "a")
        with pytest.raises(MhnosError):
            write(workspace, "/a", b"x")
        assert os.listdir(root) == ["a"]

    def test_the_top_is_no_file(self, workspace: Workspace) -> None:
        with pytest.raises(InvalidRequest):
            write(workspace, "/", b"x")


class TestSpace:
    def test_min_free_is_left_also_in_the_middle(
        self, root: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        disk = namedtuple("disk", "f_bavail f_frsize")
        free = [100 << 20]
        monkeypatch.setattr(os, "fstatvfs", lambda _: disk(free[0], 1))
        with Workspace(root, min_free=90 << 20) as workspace:
            made = Draft(workspace, "/a")
            made.write(b"x" * (4 << 20))
            free[0] = 1 << 20
            made.write(b"x" * (4 << 20))  # within what was looked at
            with pytest.raises(LimitReached) as caught:
                made.write(b"x" * (4 << 20))
            made.drop()
        assert caught.value.code == "disk-full"
        assert os.listdir(root) == []
