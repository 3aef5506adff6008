"""Work on the trash that is given up, or cut off by the end of its server: nothing is lost, nor left half."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mhnos_runtime.files import tree
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.draft import ANYTHING
from mhnos_runtime.files.steps import Steps
from tests.files.binned import WHOLE, Bin, tree_of
from tests.files.driving import drive, give_up_after, paths


@pytest.mark.parametrize("count", range(30))
def test_given_up_it_is_here_or_there(store: Bin, root: Path, count: int) -> None:
    tree_of(root)
    give_up_after(store.removing("/t"), count)
    if paths(root):
        assert paths(root) == WHOLE
        assert store.items() == []
    else:
        [item] = store.items()
        store.restore(item.id)
        assert paths(root) == WHOLE


@pytest.mark.parametrize("count", range(30))
@pytest.mark.parametrize("then", ["nothing", "taken"])
def test_cut_off_it_is_here_or_there_after_a_restart(store: Bin, root: Path, count: int, then: str) -> None:
    """As where the server is killed: nothing clears up but the next one."""
    tree_of(root)
    steps = store.removing("/t")
    for _ in range(count):
        if next(steps, "end") == "end":
            break
    steps.close()
    was_away = not (root / "t").exists()
    if was_away and then == "taken":
        (root / "t").write_text("theirs")
    again = store.again()
    again.sweep()
    assert not [name for name in os.listdir(root) if name.startswith(".mhnos")]
    found = again.items()
    if found:
        again.restore(found[0].id, "/back")
        assert paths(root / "back") == [path[2:] for path in WHOLE[1:]]
    elif was_away and then == "taken":
        assert (root / "t").read_text() == "theirs"
        assert paths(root / "t.restored") == [path[2:] for path in WHOLE[1:]]
    else:
        assert paths(root) == WHOLE
    assert not store.folder.exists() or os.listdir(store.folder) == []


def test_cut_off_it_waits_for_a_workspace_that_is_not_there(store: Bin, root: Path) -> None:
    """A server may come up before the workspace is mounted: nothing is given up because of that."""
    tree_of(root)
    steps = store.removing("/t")
    for _ in range(3):
        next(steps, None)
    steps.close()
    root.rename(root.parent / "not yet mounted")
    again = store.again()
    with Workspace(root) as missing:
        drive(again.trash.sweep(missing))
    (root.parent / "not yet mounted").rename(root)
    again.sweep()
    for item in again.items():
        again.restore(item.id)
    assert paths(root) == WHOLE


@pytest.mark.parametrize("count", range(30))
@pytest.mark.parametrize("act", ["move", "copy"])
def test_cut_off_what_was_replaced_can_be_had(store: Bin, root: Path, count: int, act: str) -> None:
    """A server that is killed while it replaces something in one folder by something of another one."""
    (root / "from").mkdir()
    (root / "from/new").write_text("new")
    tree_of(root)
    steps = replacing(store, act, "/from/new", "/t")
    for _ in range(count):
        if next(steps, "end") == "end":
            break
    steps.close()
    again = store.again()
    again.sweep()
    for item in again.items():
        again.restore(item.id, "/back")
    assert [path.read_text() for path in root.glob("[!.]*/d/file")] == ["t"]


@pytest.mark.parametrize("act", ["move", "copy"])
def test_nothing_is_replaced_before_the_trash_is_ready(
    store: Bin, root: Path, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    """Until what was replaced is in the trash it has a name that is never listed: a disk that is slow to
    write its record, and a server that is killed meanwhile, must not leave it there."""

    class Killed(BaseException):
        pass

    def kill(_: int) -> None:
        raise Killed

    (root / "f").write_text("new")
    (root / "to").write_text("old")
    monkeypatch.setattr(os, "fsync", kill)
    with pytest.raises(Killed):
        drive(replacing(store, act, "/f", "/to"))
    assert (root / "to").read_text() == "old"


def replacing(store: Bin, act: str, source: str, target: str) -> Steps[object]:
    if act == "copy":
        return tree.copy(store.workspace, store.trash, source, target, replace=True)
    return tree.move(store.workspace, store.trash, source, target, replace=True, condition=ANYTHING)
