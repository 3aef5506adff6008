"""Drafts that nothing is left of, and drafts that outlive whoever writes them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mhnos_runtime.errors import Conflict, InvalidRequest, NotFound
from mhnos_runtime.files import draft as module
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.draft import Condition, Draft, Kept
from mhnos_runtime.files.paths import PARTIAL_PREFIX

ABSENT = Condition(absent=True)


def partials(root: Path) -> list[Path]:
    return list(root.glob(PARTIAL_PREFIX + "*"))


@pytest.fixture(params=["unnamed", "named"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """File systems with files without a name, and those where each has one from the beginning."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "")

    if request.param == "named":
        monkeypatch.setattr(module, "create_unnamed", refuse)
    return str(request.param)


def kept(workspace: Workspace, content: bytes = b"half", condition: Condition = ABSENT) -> Kept:
    draft = Draft(workspace, "/f", condition)
    found = draft.kept()
    draft.keep(found)
    draft.write(content)
    draft.close()
    return found


def test_nothing_is_left_of_a_draft_whose_server_was_killed(workspace: Workspace, root: Path) -> None:
    draft = Draft(workspace, "/f")
    draft.write(b"x")
    assert os.listdir(root) == []
    draft.drop()


@pytest.mark.parametrize("condition", [Condition(), ABSENT])
@pytest.mark.parametrize("old", [None, b"old"])
def test_either_kind_of_file_system(
    either: str, workspace: Workspace, root: Path, condition: Condition, old: bytes | None
) -> None:
    draft = Draft(workspace, "/f", condition)
    draft.write(b"new")
    if old:
        (root / "f").write_bytes(old)  # after the first look at the condition
    if old and condition.absent:
        with pytest.raises(Conflict, match="one already"):
            draft.commit()
        draft.drop()
        assert (root / "f").read_bytes() == old
    else:
        assert draft.commit(durable=True).created is (old is None)
        assert (root / "f").read_bytes() == b"new"
    assert os.listdir(root) == ["f"]


def test_a_kept_draft_goes_on_at_its_end(either: str, workspace: Workspace, root: Path) -> None:
    found = kept(workspace)
    again = Draft(workspace, "/f", ABSENT, 0o640, again=found)
    assert again.status.st_size == 4
    again.write(b"whole")
    again.sync()
    again.truncate(6)
    again.write(b"!")
    assert again.commit(durable=True).created
    assert (root / "f").read_bytes() == b"halfwh!"
    assert (root / "f").stat().st_mode & 0o777 == 0o640
    assert partials(root) == []


def test_a_kept_draft_that_is_dropped(either: str, workspace: Workspace, root: Path) -> None:
    found = kept(workspace)
    Draft(workspace, "/f", again=found).drop()
    assert os.listdir(root) == []
    with pytest.raises(NotFound) as caught:
        Draft(workspace, "/f", again=found)
    assert caught.value.code == "gone"


def swap_for_link(partial: Path) -> None:
    partial.symlink_to("../ws-secret/canary")


def swap_for_hard_link(partial: Path) -> None:
    os.link(partial.parent.parent / "ws-secret/canary", partial)


def swap_for_file(partial: Path) -> None:
    partial.write_bytes(b"half")


SWAPS: list[Callable[[Path], None]] = [
    swap_for_link,
    swap_for_hard_link,
    swap_for_file,
    os.mkfifo,
    Path.mkdir,
    lambda partial: None,
]


@pytest.mark.parametrize("swap", SWAPS)
def test_what_a_process_put_in_its_place_is_never_opened(
    workspace: Workspace, root: Path, swap: Callable[[Path], None]
) -> None:
    found = kept(workspace)
    (partial,) = partials(root)
    # Still there, so that no other file gets its inode.
    partial.rename(root / "aside")
    swap(partial)
    with pytest.raises(NotFound) as caught:
        Draft(workspace, "/f", again=found)
    assert caught.value.code == "gone"


def test_swapped_while_it_is_written(workspace: Workspace, root: Path) -> None:
    """What is there takes the place, as if the process had put it there; nothing is written through it."""
    draft = Draft(workspace, "/f", again=kept(workspace))
    (partial,) = partials(root)
    partial.unlink()
    partial.symlink_to("../ws-secret/canary")
    draft.write(b"more")
    try:
        draft.commit(0)
    except OSError:
        draft.drop()
    assert not (root / "f").exists() or (root / "f").is_symlink()


def test_the_folder_moved_away(workspace: Workspace, root: Path) -> None:
    (root / "d").mkdir()
    draft = Draft(workspace, "/d/f")
    found = draft.kept()
    draft.keep(found)
    draft.close()
    (root / "d").rename(root / "e")
    with pytest.raises(NotFound):
        Draft(workspace, "/d/f", again=found)
    assert not (root / "d").exists()
    (root / "e").rename(root / "d")
    Draft(workspace, "/d/f", again=found).drop()


def test_a_directory_in_its_way(workspace: Workspace, root: Path) -> None:
    found = kept(workspace)
    (root / "f").mkdir()
    with pytest.raises(InvalidRequest, match="Is a directory"):
        Draft(workspace, "/f", again=found)


def test_killed_between_giving_the_name_and_removing_the_other(workspace: Workspace, root: Path) -> None:
    found = kept(workspace)
    os.link(root / found.name, root / "f")
    assert Draft(workspace, "/f", ABSENT, again=found).commit().created
    assert os.listdir(root) == ["f"]
    assert (root / "f").read_bytes() == b"half"
