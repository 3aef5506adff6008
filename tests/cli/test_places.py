"""What a path on the command line means: the workspace, this machine, or a stream."""

from __future__ import annotations

import click
import pytest

from mhnos_runtime.cli.places import FilePath, FilePlace, Place, folded, inside, last_name, place_of


@pytest.mark.parametrize(
    ("text", "path", "is_inside"),
    [
        (":/src/a", "/src/a", True),
        (":src/a", "/src/a", True),
        (":", "/", True),
        (":a:b", "/a:b", True),
        ("src/a", "src/a", False),
        ("./:a", "./:a", False),
        ("c:/x", "c:/x", False),
    ],
)
def test_a_colon_leads_into_the_workspace(text: str, path: str, is_inside: bool) -> None:
    assert place_of(text) == Place(path, is_inside)


@pytest.mark.parametrize(
    ("text", "path"), [("a", "/a"), (":a", "/a"), ("/a/", "/a/"), (":/", "/"), ("::a", "/:a")]
)
def test_where_only_the_workspace_can_be_meant_the_colon_may_be_left_out(text: str, path: str) -> None:
    assert inside(text) == path


def test_a_stream_is_one_outside_only() -> None:
    assert place_of("-").is_stream
    assert not place_of(":-").is_stream
    assert not place_of("./-").is_stream


@pytest.mark.parametrize(
    ("path", "content"),
    [("dir/.", True), (".", True), ("/", True), ("dir", False), ("dir/", False), ("..", False)],
)
def test_what_is_in_a_folder_is_meant_by_a_dot(path: str, content: bool) -> None:
    assert Place(path, True).is_content is content


def test_names_are_the_last_ones() -> None:
    assert [last_name(path) for path in ("/a/b", "/a/b/", "b", "/", "//")] == ["b", "b", "b", "", ""]
    assert [folded(path) for path in ("/a/../b/.", "//a//b/", "/")] == ["/b", "/a/b", "/"]
    assert str(Place("/a", True)) == ":/a"
    assert str(Place("a", False)) == "a"


@pytest.mark.parametrize("kind", [FilePath(), FilePlace()])
def test_what_is_no_text_is_refused_before_anything_is_asked(kind: FilePath) -> None:
    with pytest.raises(click.BadParameter, match="is not UTF-8"):
        kind.convert(":/bad\udcff", None, None)


def test_a_local_name_may_be_any_bytes() -> None:
    assert FilePlace().convert("bad\udcff", None, None) == Place("bad\udcff", False)
