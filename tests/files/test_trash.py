"""The trash: what goes in comes out, also over restarts, full disks and damage."""

from __future__ import annotations

import errno
import os
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.errors import Conflict, MhnosError, NotFound, Refused, Unavailable
from mhnos_runtime.files import trash as module
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.rename import rename_free
from mhnos_runtime.files.steps import Steps
from mhnos_runtime.files.trash import Trash
from tests.files.binned import WHOLE, Bin, tree_of
from tests.files.driving import drive, paths


def test_there_and_back(store: Bin, root: Path) -> None:
    tree_of(root)
    item = store.remove("/t")
    assert os.listdir(root) == []
    [shown] = store.items()
    assert (shown.id, shown.path, shown.record.kind) == (item, "/t", "directory")
    assert abs(shown.record.removed_ms - time.time() * 1000) < 60_000
    assert shown.expires_ms == shown.record.removed_ms + 3_600_000
    assert store.restore(item).path == "/t"
    assert paths(root) == WHOLE
    assert (root / "t/d/file").stat().st_mode & 0o7777 == 0o4751
    assert (root / "t/d").stat().st_mtime_ns == 5
    assert store.items() == []
    assert os.listdir(store.folder) == []


def test_to_another_place_with_its_parents(store: Bin, root: Path) -> None:
    (root / "f").write_text("f")
    item = store.remove("/f")
    store.restore(item, "/new/deep/g")
    assert (root / "new/deep/g").read_text() == "f"


def test_parents_that_are_gone_are_made_again(store: Bin, root: Path) -> None:
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/f").touch()
    first, second = store.remove("/a/b/f"), store.remove("/a")
    store.restore(first)
    assert paths(root) == ["a", "a/b", "a/b/f"]
    with pytest.raises(Conflict):
        store.restore(second)


@pytest.mark.parametrize("there", ["file", "directory", "link"])
def test_never_over_something(store: Bin, root: Path, there: str) -> None:
    (root / "f").write_text("f")
    item = store.remove("/f")
    if there == "link":
        (root / "f").symlink_to("nowhere")
    else:
        (root / "f").mkdir() if there == "directory" else (root / "f").touch()
    inode = (root / "f").lstat().st_ino
    with pytest.raises(Conflict) as caught:
        store.restore(item)
    assert (caught.value.code, (root / "f").lstat().st_ino) == ("already-exists", inode)
    assert store.restore(item, "/g").kind == "file"


def test_something_made_there_at_the_last_moment(
    store: Bin, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "f").write_text("f")
    item = store.remove("/f")
    plain = rename_free

    def late(name: bytes, new: bytes, *folders: int) -> None:
        if new == b"f":
            (root / "f").write_text("theirs")
        plain(name, new, *folders)

    monkeypatch.setattr(module, "rename_free", late)
    with pytest.raises(Conflict):
        store.restore(item)
    monkeypatch.undo()
    assert os.listdir(root) == ["f"]
    assert (root / "f").read_text() == "theirs"
    assert store.restore(item, "/g").kind == "file"


@pytest.mark.parametrize("limit", [1, 2, 5, 1000])
def test_the_latest_first_in_pages(store: Bin, root: Path, limit: int) -> None:
    for number in range(10):
        (root / str(number)).touch()
        store.remove(f"/{number}")
    assert [item.path for item in store.items(limit)] == [f"/{number}" for number in reversed(range(10))]


def test_pages_over_batches_and_limits(store: Bin, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH", 3)
    for number in range(10):
        (root / f"a{number % 2}").mkdir(exist_ok=True)
        (root / f"a{number % 2}/{number}").touch()
        store.remove(f"/a{number % 2}/{number}")
    limited = store.workspace.limited(["/a1"])
    assert [item.path for item in store.items(2, limited)] == [f"/a1/{n}" for n in (9, 7, 5, 3, 1)]
    assert drive(store.trash.empty(None, limited.covers)) == 5
    assert len(store.items()) == 5
    assert store.empty() == 5


@pytest.mark.parametrize("item", ["0" * 16, "x", "../../ws", "", "é" * 16, "0" * 15 + "/", "\udcff" * 16])
def test_what_is_no_item(store: Bin, root: Path, item: str) -> None:
    (root / "f").touch()
    store.remove("/f")
    for act in (lambda: store.restore(item), lambda: store.empty([item])):
        with pytest.raises(NotFound):
            act()


def test_a_limited_grant_has_what_was_in_its_folders(store: Bin, root: Path) -> None:
    for name in ("a", "b"):
        (root / name).mkdir()
        (root / name / "f").write_text(name)
    mine, other = store.remove("/a/f"), store.remove("/b/f")
    limited = store.workspace.limited(["/a"])
    assert [item.id for item in store.items(workspace=limited)] == [mine]
    for act in (
        lambda: drive(store.trash.restore(limited, other, "/a/x")),
        lambda: drive(store.trash.restore(limited, other, None)),
        lambda: drive(store.trash.empty([other], limited.covers)),
    ):
        with pytest.raises(NotFound):
            act()
    with pytest.raises(Refused):
        drive(store.trash.restore(limited, mine, "/b/g"))
    assert drive(store.trash.restore(limited, mine, None)).path == "/a/f"


def test_what_was_removed_through_a_link_is_of_the_folder_where_it_was(store: Bin, root: Path) -> None:
    """Or somebody with a grant for the folder of the link could have what the link led to."""
    (root / "a").mkdir()
    (root / "b").mkdir()
    (root / "b/secret").touch()
    (root / "a/l").symlink_to("../b")
    store.remove("/a/l/secret")
    assert store.items(workspace=store.workspace.limited(["/a"])) == []
    assert [item.path for item in store.items()] == ["/b/secret"]


# Time and room


def test_what_has_expired_goes(store: Bin, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("old", "new"):
        tree_of(root, name)
    store.remove("/old")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3000)
    monkeypatch.setattr(time, "time_ns", lambda: int((now + 3000) * 1e9))
    store.remove("/new")
    store.sweep()
    assert len(store.items()) == 2
    monkeypatch.setattr(time, "time", lambda: now + 3700)
    store.sweep()
    assert [item.path for item in store.items()] == ["/new"]
    assert len(os.listdir(store.folder)) == 1


def test_a_sweep_looks_at_what_is_young_once(store: Bin, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand items took a tenth of a CPU, for as long as none of them expired."""
    looked = list[str]()
    look_after = Trash._look_after

    def counted(trash: Trash, top: int, item: str, workspace: Workspace) -> Steps[None]:
        looked.append(item)
        return look_after(trash, top, item, workspace)

    monkeypatch.setattr(Trash, "_look_after", counted)
    for name in "fgh":
        (root / name).touch()
        store.remove(f"/{name}")
    again = store.again()
    for _ in range(3):
        again.sweep()
    assert len(looked) == 3


def test_a_tree_that_nobody_may_write_expires_too(store: Bin, root: Path) -> None:
    (root / "t/d").mkdir(parents=True)
    (root / "t/d/f").touch()
    (root / "t/d").chmod(0o500)
    (root / "t").chmod(0o700)
    store.remove("/t")
    again = store.again(keep_seconds=0.0)
    again.sweep()
    assert os.listdir(store.folder) == []


def test_the_oldest_go_where_the_disk_is_full(
    store: Bin, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        (root / str(number)).touch()
        store.remove(f"/{number}")
    disk = namedtuple("disk", "f_bavail f_frsize")
    monkeypatch.setattr(os, "fstatvfs", lambda _: disk(100 - 10 * len(os.listdir(store.folder)), 1))
    store.trash.min_free = 70
    store.sweep()
    assert [item.path for item in store.items()] == ["/4", "/3", "/2"]


def test_removing_the_same_thing_many_times_in_a_millisecond(
    store: Bin, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the clock stands still or goes back."""
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)
    for number in range(20):
        (root / "f").write_text(str(number))
        store.remove("/f")
    ids = [item.id for item in store.items()]
    assert ids == sorted(ids, reverse=True)
    store.restore(ids[0])
    assert (root / "f").read_text() == "19"


# Faults


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("call", ["mkdir", "write", "fsync"])
def test_a_trash_that_cannot_be_written_leaves_everything(
    store: Bin, root: Path, monkeypatch: pytest.MonkeyPatch, number: int, call: str
) -> None:
    tree_of(root)
    store.folder.mkdir(parents=True)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(Unavailable) as caught:
        store.remove("/t")
    monkeypatch.undo()
    assert "outright" in caught.value.hint
    assert str(store.folder) not in caught.value.message
    assert paths(root) == WHOLE
    store.again().sweep()
    assert os.listdir(store.folder) == []


def test_a_disk_that_fills_while_it_is_copied(
    store: Bin, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree_of(root)
    store.trash.min_free = 1 << 60
    if store.is_near:
        store.remove("/t")  # nothing is copied
        return
    with pytest.raises(Unavailable) as caught:
        store.remove("/t")
    assert (caught.value.code, "outright" in caught.value.hint) == ("disk-full", True)
    assert paths(root) == WHOLE
    assert os.listdir(store.folder) == []


def test_an_original_that_cannot_be_removed_whole(
    store: Bin, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has arrived in the trash stays there, and is no less for what is left."""
    tree_of(root)
    plain = os.rmdir

    def refuse(name: bytes, **more: Any) -> None:
        if name == b"d":
            raise PermissionError(errno.EACCES, "")
        plain(name, **more)

    monkeypatch.setattr(os, "rmdir", refuse)
    if not store.is_near:
        with pytest.raises(Refused):
            store.remove("/t")
        [item] = store.items()
        monkeypatch.undo()
        store.again().sweep()
        assert os.listdir(root) == []
        store.restore(item.id)
        assert paths(root) == WHOLE


def test_something_else_under_its_name_goes_back(
    store: Bin, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "f").write_text("meant")
    (root / "g").write_text("other")
    plain = rename_free

    def swapped(name: bytes, *rest: Any) -> None:
        if name == b"f" and (root / "g").exists():
            (root / "f").rename(root / "h")
            (root / "g").rename(root / "f")
        plain(name, *rest)

    monkeypatch.setattr(module, "rename_free", swapped)
    with pytest.raises(Unavailable):
        store.remove("/f")
    assert {name: (root / name).read_text() for name in os.listdir(root)} == {"f": "other", "h": "meant"}
    assert store.items() == []


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[:20]),
    "a list": lambda path: path.write_bytes(b"[1]"),
    "other fields": lambda path: path.write_bytes(b'{"x":1}'),
    "nested": lambda path: path.write_bytes(b"[" * 60_000),
    "another version": lambda path: path.write_bytes(
        path.read_bytes().replace(b'"version": 1', b'"version": 2')
    ),
    "no path": lambda path: path.write_bytes(path.read_bytes().replace(b'"/f"', b"7")),
    "a lone surrogate": lambda path: path.write_bytes(path.read_bytes().replace(b'"/f"', b'"\\ud800"')),
    "gone": Path.unlink,
    "a directory": lambda path: instead(path, Path.mkdir),
    "a fifo": lambda path: instead(path, os.mkfifo),
    "a link": lambda path: instead(path, lambda path: path.symlink_to("/etc/passwd")),
}


def instead(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_record_is_told_and_the_others_stay(store: Bin, root: Path, damage: str) -> None:
    for name in "fg":
        (root / name).touch()
    item = store.remove("/f")
    store.remove("/g")
    DAMAGE[damage](store.folder / item / "record.json")
    again = store.again()
    again.sweep()
    for _ in range(3):
        assert [each.path for each in again.items()] == ["/g"]
    assert len(again.told) == (0 if damage == "gone" else 1)
    assert (store.folder / item / "content").exists()
    with pytest.raises(NotFound):
        again.restore(item)
    last = again.again(keep_seconds=0.0)
    last.sweep()
    assert os.listdir(store.folder) == []


@pytest.mark.parametrize("act", ["page", "empty"])
def test_a_trash_that_cannot_be_opened_is_told_without_its_place(store: Bin, act: str) -> None:
    store.folder.write_text("in the way")
    with pytest.raises(Unavailable, match=r"^The trash cannot be used: Not a directory$"):
        store.items() if act == "page" else store.empty()


@pytest.mark.parametrize("act", ["restore", "empty"])
def test_an_item_that_somebody_else_has_taken_meanwhile(
    store: Bin, root: Path, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    (root / "f").touch()
    item = store.remove("/f")
    found = store.trash._find

    def late(*args: Any) -> Any:
        record = found(*args)
        store.again().empty()
        return record

    monkeypatch.setattr(store.trash, "_find", late)
    if act == "restore":
        with pytest.raises(NotFound):
            store.restore(item)
    else:
        store.empty([item])
    assert store.again().items() == []


def test_an_item_that_cannot_be_removed(store: Bin, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> Steps[None]:
        raise PermissionError(errno.EPERM, "x", "/secret")

    for name in "fg":
        (root / name).touch()
    f, g = store.remove("/f"), store.remove("/g")
    monkeypatch.setattr(module, "remove_tree", fail)
    with pytest.raises(Unavailable, match=r"^The trash cannot be used: Operation not permitted$"):
        store.empty([f])
    assert store.restore(g).path == "/g"


def test_strange_things_in_its_folder(store: Bin, root: Path) -> None:
    (root / "f").touch()
    store.remove("/f")
    (store.folder / "notes.txt").touch()
    (store.folder / ("0" * 16)).touch()
    (store.folder / ("1" * 16)).symlink_to("/etc")
    (store.folder / ".gone-x").mkdir()
    store.sweep()
    assert [each.path for each in store.items()] == ["/f"]
    assert "notes.txt" in os.listdir(store.folder)
    assert not (store.folder / ".gone-x").exists()


def test_a_trash_that_is_a_link_is_not_used(store: Bin, root: Path, outside: Path) -> None:
    store.folder.parent.mkdir(exist_ok=True)
    store.folder.symlink_to(outside)
    (root / "f").touch()
    with pytest.raises(MhnosError):
        store.remove("/f")
    assert os.listdir(root) == ["f"]


def test_nothing_was_ever_removed(store: Bin) -> None:
    store.sweep()
    assert (store.items(), store.empty()) == ([], 0)
    assert not store.folder.exists()
