"""Changes of one path become one; too many become a hint. A client that applies them knows what is there."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime import bounds
from mhnos_runtime.files import changes as module
from mhnos_runtime.files.changes import Change, Changes, What

V1, V2 = "1" * 24, "2" * 24


def after(*whats: What) -> What:
    changes = Changes()
    for what in whats:
        changes.add("/a", Change(what, "file", None if what == "removed" else V1))
    return changes.named["/a"].what


@pytest.mark.parametrize(
    ("first", "then", "told"),
    [
        ("created", "created", "created"),
        ("created", "changed", "created"),
        ("created", "removed", "removed"),
        ("changed", "created", "changed"),
        ("changed", "changed", "changed"),
        ("changed", "removed", "removed"),
        ("removed", "created", "changed"),
        ("removed", "changed", "changed"),
        ("removed", "removed", "removed"),
    ],
)
def test_two_changes_of_a_file_are_one(first: What, then: What, told: What) -> None:
    assert after(first, then) == told


def test_the_latest_version_and_kind_are_told() -> None:
    changes = Changes()
    changes.add("/a", Change("created", "file", V1))
    changes.add("/a", Change("changed", "link", V2))
    assert changes.named == {"/a": Change("created", "link", V2)}


@pytest.mark.parametrize("what", ["created", "removed"])
def test_a_directory_that_comes_or_goes_takes_along_what_is_below(what: What) -> None:
    changes, later = Changes(), Changes()
    for path in ("/a/b", "/a/b/c", "/ab", "/a"):
        changes.add(path, Change("created", "file", V1))
    later.merge(changes)
    for told in (changes, later):
        told.add("/a", Change(what, "directory"))
        assert set(told.named) == {"/a", "/ab"}
        assert told.named["/a"].what == what


def test_what_comes_later_replaces_what_is_below_also_in_a_merge() -> None:
    first, then = Changes(), Changes()
    first.add("/a/b", Change("created", "file", V1))
    then.add("/a", Change("removed", "directory"))
    then.add("/a", Change("created", "directory"))
    then.add("/a/c", Change("created", "file", V1))
    first.merge(then)
    assert {path: change.what for path, change in first.named.items()} == {"/a": "created", "/a/c": "created"}


def test_too_many_or_too_long_names_become_a_hint() -> None:
    many, long = Changes(), Changes()
    for number in range(bounds.NAMED_CHANGES):
        many.add(f"/{number}", Change("created", "file", V1))
    assert not many.rescan
    many.add("/one", Change("created", "file", V1))
    for number in itertools.count():
        if long.rescan:
            break
        long.add(f"/{number:04000}", Change("created", "file", V1))
    assert len(long.named) == 0 < number <= module.NAMED_BYTES // 4000 + 1
    for changes in (many, long):
        assert changes.rescan
        changes.add("/more", Change("created", "file", V1))
        assert not changes.named
        assert changes


def test_a_hint_in_either_makes_both_one() -> None:
    for hint in (0, 1):
        pair = Changes(), Changes()
        pair[hint].look_again()
        pair[1 - hint].add("/a", Change("created", "file", V1))
        pair[0].merge(pair[1])
        assert pair[0].rescan
        assert not pair[0].named


def test_names_that_go_leave_their_room_to_others() -> None:
    changes = Changes()
    for number in range(1000):
        changes.add(f"/a/{number:0200}", Change("created", "file", V1))
        if number % 10 == 0:
            changes.add("/a", Change("created", "directory"))
    assert not changes.rescan


PATHS = st.sampled_from(["/a", "/b", "/a/a", "/a/b", "/a/a/a", "/b/a"])
CHANGES = st.lists(
    st.tuples(PATHS, st.sampled_from(["file", "directory", "link"]), st.sampled_from(["put", "removed"])),
    max_size=20,
)


@given(CHANGES, st.integers(0, 20), st.integers(0, 20))
def test_merged_at_any_place_they_lead_to_the_same(
    operations: list[tuple[str, str, str]], first: int, second: int
) -> None:
    """A model of a tree: what a watch tells of each operation, in three portions, is applied one by one, or
    merged first."""
    tree: dict[str, str] = {}
    single: dict[str, str] = {}
    merged, portion = Changes(), Changes()
    for number, (path, kind, what) in enumerate(operations):
        for told_path, change in told(tree, path, kind, what):
            portion.add(told_path, change)
            one = Changes()
            one.add(told_path, change)
            apply(single, one)
        if number in (first, second):
            merged.merge(portion)
            portion = Changes()
    merged.merge(portion)
    view: dict[str, str] = {}
    apply(view, merged)
    assert view == single == tree


def told(tree: dict[str, str], path: str, kind: str, what: str) -> list[tuple[str, Change]]:
    """Carries out one operation, where it is possible; what a watch tells of it."""
    parent = path.rpartition("/")[0]
    if parent and tree.get(parent) != "directory":
        return []
    old = tree.get(path)
    if kind == "directory" == old and what == "put":
        return []
    found: list[tuple[str, Change]] = []
    if old is not None and (what == "removed" or "directory" in (old, kind)):
        for each in [each for each in tree if each == path or each.startswith(path + "/")]:
            del tree[each]
        found.append((path, Change("removed", old)))  # type: ignore[arg-type]
        old = None
    if what == "put":
        tree[path] = kind
        found.append((path, Change("changed" if old else "created", kind)))  # type: ignore[arg-type]
    return found


def apply(view: dict[str, str], changes: Changes) -> None:
    for path, change in sorted(changes.named.items()):
        for each in [each for each in view if each == path or each.startswith(path + "/")]:
            del view[each]
        if change.what != "removed":
            view[path] = change.kind
