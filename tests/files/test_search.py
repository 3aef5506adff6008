"""Searches of real trees: what git lists, and trees that are made to hang or fill a server, or lead out."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mhnos_runtime.errors import InvalidRequest, NotFound, Refused
from mhnos_runtime.files import search as module
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.ignore import USUAL, Ignore
from mhnos_runtime.files.lines import Told
from mhnos_runtime.files.paths import PARTIAL_PREFIX
from mhnos_runtime.files.search import Match, Query, Result, search
from mhnos_runtime.files.steps import GivenUp, Steps
from mhnos_runtime.patterns import compiled

MEMORY_KB = 64 << 10


def steps(workspace: Workspace, path: str = "/", **fields: Any) -> Steps[Result]:
    """name, pattern: texts, with the meaning that a request gives them."""
    fold = fields.pop("ignore_case", False)
    name, pattern = fields.pop("name", None), fields.pop("pattern", None)
    return search(
        workspace,
        Query(
            path,
            name and Ignore.named(name),
            pattern and compiled(pattern, fixed=False, ignore_case=fold),
            fold,
            usual=Ignore.of(USUAL),
            ignored=fields.pop("ignored", False),
            most=fields.pop("most", 1 << 20),
            **fields,
        ),
    )


def searched(workspace: Workspace, path: str = "/", **fields: Any) -> Result:
    return the_end(steps(workspace, path, **fields))


def the_end(going: Steps[Result]) -> Result:
    while True:
        try:
            next(going)
        except StopIteration as end:
            result: Result = end.value
            return result


def paths(workspace: Workspace, path: str = "/", **fields: Any) -> list[str]:
    return [match.path for match in searched(workspace, path, **fields).matches]


def fill(root: Path, *files: str, text: str = "needle\n") -> None:
    """Files with their parents; a directory where a path ends in a slash."""
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        if file.endswith("/"):
            (root / file).mkdir(exist_ok=True)
        else:
            (root / file).write_text(text)


# What is found


def test_by_name_everything_that_a_name_fits(workspace: Workspace, root: Path) -> None:
    fill(root, "a.py", "src/b.py", "src/deep/test_c.py", "src/b.txt", "x.py/")
    (root / "link.py").symlink_to("a.py")
    os.mkfifo(root / "fifo.py")
    result = searched(workspace, name="*.py")
    assert result.matches == [
        Match("/a.py", "file"),
        Match("/fifo.py", "other"),
        Match("/link.py", "link"),
        Match("/src/b.py", "file"),
        Match("/src/deep/test_c.py", "file"),
        Match("/x.py", "directory"),
    ]
    assert (result.searched, result.unread, result.truncated) == (9, 0, False)
    assert paths(workspace, name="src/**/test_*") == ["/src/deep/test_c.py"]
    assert paths(workspace, "/src", name="/*.py") == ["/src/b.py"]
    assert paths(workspace, name="deep/") == ["/src/deep"]


def test_by_content_each_line(workspace: Workspace, root: Path) -> None:
    fill(root, "b/two", "b.txt", "a", text="no\nthe needle\nneedle\n")
    result = searched(workspace, pattern="needle")
    assert result.matches == [
        Match(path, "file", *line)
        for path in ("/a", "/b.txt", "/b/two")
        for line in ((2, 4, "the needle"), (3, 0, "needle"))
    ]
    assert (result.searched, result.searched_bytes, result.unread) == (3, 3 * 21, 0)
    assert paths(workspace, pattern="needle", name="*.txt") == ["/b.txt"] * 2


def test_upper_and_lower_case(workspace: Workspace, root: Path) -> None:
    fill(root, "README.md", "Ärger.MD", text="Needle\n")
    assert paths(workspace, name="*.md") == ["/README.md"]
    assert paths(workspace, name="*.md", ignore_case=True) == ["/README.md", "/Ärger.MD"]
    assert len(paths(workspace, pattern="needle", ignore_case=True)) == 2


def test_a_folder_is_searched_alone(workspace: Workspace, root: Path) -> None:
    fill(root, "a/x", "b/x", "workspace/x", "workspace/workspace/x")
    (root / "to-a").symlink_to("a")
    assert paths(workspace, "/a", name="x") == ["/a/x"]
    assert paths(workspace, "a/../b", name="x") == ["/b/x"]
    assert paths(workspace, "/to-a", name="x") == ["/to-a/x"]
    found = paths(workspace, "/workspace/workspace", name="x")
    assert found == ["/workspace/workspace/workspace/x", "/workspace/workspace/x"]
    assert [path for path in paths(workspace, name="x") if "workspace" in path] == found
    for path in found:
        os.close(workspace.open_file(path, os.O_RDONLY))


@pytest.mark.parametrize(
    ("path", "error"), [("/none", NotFound), ("/fifo", InvalidRequest), ("/out", Refused), ("/../x", Refused)]
)
def test_where_nothing_can_be_searched(
    workspace: Workspace, root: Path, outside: Path, path: str, error: type[Exception]
) -> None:
    os.mkfifo(root / "fifo")
    (root / "out").symlink_to(outside)
    with pytest.raises(error):
        searched(workspace, path, name="x")


def test_a_file_is_searched_alone_whatever_rules_say_of_it(workspace: Workspace, root: Path) -> None:
    """grep PATTERN FILE is what everybody types first; a named file was refused as no directory."""
    fill(root, "src/a.log", "src/b", "src/a.log.1", text="one\nneedle\nneedle\n")
    fill(root, ".gitignore", text="*.log\n")
    (root / "link").symlink_to("src/a.log")
    for path in ("/src/a.log", "src/../src/a.log", "/link"):
        shown = "/link" if path == "/link" else "/src/a.log"
        result = searched(workspace, path, pattern="needle")
        assert [match[:3] for match in result.matches] == [(shown, "file", 2), (shown, "file", 3)]
        assert (result.searched, result.searched_bytes, result.truncated) == (1, 18, False)
    assert searched(workspace, "/src/a.log", pattern="needle", most=1).truncated
    assert paths(workspace, "/src/a.log", name="*.log") == ["/src/a.log"]
    assert paths(workspace, "/src/a.log", name="*.py", pattern="needle") == []
    (root / "src/b").write_bytes(b"needle\0")
    assert searched(workspace, "/src/b", pattern="needle").unread == 1


def test_what_a_grant_for_folders_sees(workspace: Workspace, root: Path) -> None:
    fill(root, "a/b/x", "a/x", "c/x")
    fill(root, ".gitignore", text="x\n")
    limited = workspace.limited(["/a/b"])
    assert paths(limited, "/a/b", name="x") == ["/a/b/x"]
    for path in ("/", "/a", "/c", "/a/b/../../c"):
        with pytest.raises(Refused):
            searched(limited, path, name="x")
    assert paths(workspace, "/a/b", name="x") == []


# What is passed over


def test_what_nobody_edits_is_passed_over(workspace: Workspace, root: Path) -> None:
    fill(root, "node_modules/x", "a/.git/x", "a/.venv/x", "x.tmp", "a/x", "b/.github/x")
    assert paths(workspace, pattern="needle") == ["/a/x", "/b/.github/x"]
    assert len(paths(workspace, pattern="needle", ignored=True)) == 6
    assert paths(workspace, "/node_modules", pattern="needle") == ["/node_modules/x"]


def test_files_on_their_way_are_never_found(workspace: Workspace, root: Path) -> None:
    fill(root, f"{PARTIAL_PREFIX}1", f"a/{PARTIAL_PREFIX}2/x", "a/x")
    assert paths(workspace, pattern="needle", ignored=True) == ["/a/x"]


def test_rules_of_each_folder(workspace: Workspace, root: Path) -> None:
    fill(root, "a.log", "a/a.log", "a/keep.log", "a/b/keep.log", "out/x", "a/out/x", "a/b/c/y")
    fill(root, ".gitignore", text="*.log\n/out\n")
    fill(root, "a/.gitignore", text="!keep.log\n/b/c/\n")
    fill(root, "a/b/.gitignore", text="keep.log\n!c/\n")
    assert paths(workspace, pattern="needle") == ["/a/b/c/y", "/a/keep.log", "/a/out/x"]
    assert paths(workspace, "/a/b", pattern="needle") == ["/a/b/c/y"]
    assert len(paths(workspace, pattern="needle", ignored=True)) == 7


def test_rules_that_are_no_file(workspace: Workspace, root: Path) -> None:
    """As in git, which follows no link there."""
    fill(root, "rules", text="x\n")
    fill(root, "a/x", "b/x", "c/x", "d/x")
    (root / "a/.gitignore").symlink_to("../rules")
    (root / "b/.gitignore").mkdir()
    os.mkfifo(root / "c/.gitignore")
    (root / "d/.gitignore").write_bytes(b"\xff\n\xef\xbb\xbf\nx\r\n")
    assert paths(workspace, name="x") == ["/a/x", "/b/x", "/c/x"]


NAMES = st.sampled_from(["a", "b", "c.x", "d.y", "é", "e f"])
RULES = st.sampled_from(
    ["a", "a/", "/b", "*.x", "!c.x", "b/*", "!b/c.x", "a/**/b", "**/d.y", "*", "!a/", "!*.y", "?", "[ab]/c.x"]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=st.lists(st.lists(NAMES, min_size=1, max_size=4), min_size=1, max_size=12),
    rules=st.dictionaries(
        st.lists(NAMES, max_size=2).map(tuple), st.lists(RULES, min_size=1, max_size=4), max_size=4
    ),
)
def test_any_tree_is_what_git_lists(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[str]], rules: dict[tuple[str, ...], list[str]]
) -> None:
    root = tmp_path_factory.mktemp("tree")
    for file in files:
        put(root, "/".join(file), b"")
    for folder, lines in rules.items():
        if root.joinpath(*folder).is_dir():
            put(root, "/".join([*folder, ".gitignore"]), "\n".join(lines).encode())
    subprocess.run(["git", "init", "-q", root], check=True)
    command = ["git", "-c", "core.excludesFile=/dev/null", "ls-files", "-z", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout
    with Workspace(root) as opened:
        found = [match.path for match in searched(opened, name="*").matches if match.kind == "file"]
    assert found == sorted(f"/{path.decode()}" for path in listed.split(b"\0") if path)


def put(root: Path, path: str, data: bytes) -> None:
    """Where a file stands in the way, nothing is made."""
    try:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    except OSError:
        pass


# What ends it


def test_lines_around_are_beside_what_was_wanted(workspace: Workspace, root: Path) -> None:
    (root / "poem").write_text("one\ntwo\nneedle\nfour\nfive\nneedle\nseven\n")
    result = searched(workspace, "/poem", pattern="needle", told=Told(before=1, after=1), most=2)
    assert [(match.line, match.column) for match in result.matches] == [
        (2, None),
        (3, 0),
        (4, None),
        (5, None),
        (6, 0),
    ]
    assert result.truncated
    assert not searched(workspace, "/poem", pattern="needle", told=Told(after=2)).truncated


@pytest.mark.parametrize("most", [1, 10])
def test_no_more_matches_than_are_wanted(workspace: Workspace, root: Path, most: int) -> None:
    fill(root, *(f"d{number}/x" for number in range(20)), text="needle\n" * 7)
    for fields in ({"name": "x"}, {"pattern": "needle"}):
        result = searched(workspace, most=most, **fields)
        assert len(result.matches) == most
        assert result.truncated
        everything = searched(workspace, **fields)
        assert not everything.truncated
        assert result.matches == everything.matches[:most]


def test_no_larger_answer_than_there_is_room_for(
    workspace: Workspace, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(root, "x", text="\x01\x02\x03 needle\n" * 100)
    monkeypatch.setattr(module, "MAX_ANSWER_BYTES", 1000)
    result = searched(workspace, pattern="needle")
    assert 5 < len(result.matches) < 12
    assert result.truncated


def test_it_ends_when_its_time_is_over(
    workspace: Workspace, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(root, "x")
    monkeypatch.setattr(module, "MAX_SECONDS", 0.0)
    result = searched(workspace, name="x")
    assert (result.matches, result.truncated) == ([], True)


def test_a_search_that_is_given_up_leaves_nothing_open(workspace: Workspace, root: Path) -> None:
    """conftest.py looks for descriptors after each test."""
    fill(root, *(f"d{number}/x" for number in range(5)), text="needle\n" * 1000)
    for count in range(30):
        going = steps(workspace, pattern="needle")
        for _ in range(count):
            next(going)
        with pytest.raises(GivenUp):
            going.throw(GivenUp())
