"""Names, marks and memory of a watch's table."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

from mhnos_runtime.files.version import version_of
from mhnos_runtime.files.watchtable import (
    FILE_BYTES,
    FOLDER_BYTES,
    Budget,
    Folder,
    identity_of,
    kind_in,
    mark_of,
    version_in,
)


def test_a_mark_holds_kind_and_version(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.symlink("x", tmp_path / "link")
    os.mkfifo(tmp_path / "other")
    for kind in ("file", "link", "other"):
        status = os.lstat(tmp_path / kind)
        for settled in (True, False):
            mark = mark_of(status, settled)
            assert (kind_in(mark), version_in(mark)) == (kind, version_of(status))
            assert len(mark) == 13
        assert mark_of(status, settled=True) != mark_of(status, settled=False)


def test_a_folder_knows_its_names_while_it_is_part_of_the_table() -> None:
    top = Folder(None, b"", (0, 0))
    a = top.folders[b"a"] = Folder(top, b"a", (0, 1))
    b = a.folders[b"b"] = Folder(a, b"b", (0, 2))
    assert (top.names(), a.names(), b.names()) == ([], [b"a"], [b"a", b"b"])
    assert list(top.all()) == [top, a, b]
    top.folders[b"a"] = Folder(top, b"a", (0, 3))
    assert b.names() is None


def test_room_is_taken_and_given_back() -> None:
    budget = Budget(10)
    assert budget.take(6)
    assert not budget.take(5)
    budget.give(6)
    assert budget.take(10)


def test_what_is_counted_is_not_less_than_what_is_used(tmp_path: Path) -> None:
    status = os.stat(tmp_path)
    tracemalloc.start()
    try:
        top, counted = Folder(None, b"", identity_of(status)), 0
        for number in range(100):
            name = b"folder-%d" % number
            folder = top.folders[name] = Folder(top, name, identity_of(os.stat(tmp_path)))
            counted += FOLDER_BYTES + len(name)
            for other in range(100):
                name = b"file-%d-%d" % (number, other)
                folder.files[name] = mark_of(status)
                counted += FILE_BYTES + len(name)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert counted / 2 < used <= counted
