"""Searches of trees that are made to hang or fill a server, or lead out of the workspace."""

from __future__ import annotations

import errno
import os
import resource
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.errors import LimitReached
from mhnos_runtime.files import confine
from mhnos_runtime.files import search as module
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.ignore import MAX_BYTES
from mhnos_runtime.files.lines import LINE_BYTES
from mhnos_runtime.files.paths import PARTIAL_PREFIX
from mhnos_runtime.files.search import MAX_FILE_BYTES
from tests.files.test_confine_races import hammering, swap_link_and_folder
from tests.files.test_search import fill, paths, searched, steps, the_end

MEMORY_KB = 64 << 10


@pytest.fixture
def bounded_memory() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY_KB


def test_links_are_not_entered_and_not_read(workspace: Workspace, root: Path, outside: Path) -> None:
    fill(root, "a/x")
    for name, target in (("up", ".."), ("out", str(outside)), ("self", "self"), ("in", "a"), ("file", "a/x")):
        (root / name).symlink_to(target)
    assert paths(workspace, pattern="needle|canary|secret", ignored=True) == ["/a/x"]
    assert len(paths(workspace, name="*")) == 7


def test_what_is_no_file_is_never_opened(workspace: Workspace, root: Path) -> None:
    """A FIFO that is opened would wake the program that waits to write to it."""
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "socket"))
        result = searched(workspace, pattern="x")
    assert (result.searched, result.unread) == (0, 0)
    with pytest.raises(OSError, match=os.strerror(errno.ENXIO)):
        os.close(os.open(root / "fifo", os.O_WRONLY | os.O_NONBLOCK))


def test_what_becomes_no_file_meanwhile_is_not_opened(
    workspace: Workspace, root: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(root, "a", "b", "c/x")
    kind = module._kind

    def changing(entry: os.DirEntry[str]) -> Any:
        found = kind(entry)
        (root / entry.name).rename(root / f"{PARTIAL_PREFIX}{entry.name}")
        if entry.name == "a":
            os.mkfifo(root / "a")
        else:
            (root / entry.name).symlink_to(outside if entry.name == "c" else outside / "canary")
        return found

    monkeypatch.setattr(module, "_kind", changing)
    result = searched(workspace, pattern=".")
    assert (result.matches, result.searched, result.unread) == ([], 0, 3)


@pytest.mark.parametrize("target", ["../ws-secret", "{outside}"], ids=["relative", "absolute"])
def test_a_link_that_is_swapped_for_a_folder_leads_nowhere(
    workspace: Workspace, root: Path, outside: Path, target: str
) -> None:
    change = swap_link_and_folder(root, target.format(outside=outside))
    inside = 0
    with hammering(change) as changes:
        until = time.monotonic() + 30
        while inside < 50 or changes() < 1000:
            assert time.monotonic() < until
            for match in searched(workspace, pattern=".", ignored=True).matches:
                assert match.text == "inside"
                inside += 1


def test_binary_files_and_large_ones_are_counted(workspace: Workspace, root: Path) -> None:
    fill(root, "text")
    (root / "binary").write_bytes(b"needle\0")
    with open(root / "sparse", "wb") as file:
        file.truncate(1 << 40)
    with open(root / "small-sparse", "wb") as file:
        file.truncate(MAX_FILE_BYTES)
    with open(root / "large", "wb") as file:
        file.write(b"needle\n" * LINE_BYTES)
        file.truncate(MAX_FILE_BYTES + 1)
    fill(root, "empty", text="")
    result = searched(workspace, pattern="needle")
    assert [match.path for match in result.matches] == ["/text"]
    assert (result.searched, result.unread, result.searched_bytes) == (2, 4, 7)


@pytest.mark.usefixtures("bounded_memory")
def test_a_file_that_is_one_long_line(workspace: Workspace, root: Path) -> None:
    with open(root / "line", "wb") as file:
        file.writelines(b"x" * (1 << 20) for _ in range(32))
        file.write(b"needle")
    [match] = searched(workspace, pattern="needle").matches
    assert (match.line, match.column) == (1, 32 << 20)


def test_a_file_that_grows_is_read_to_where_it_was(workspace: Workspace, root: Path) -> None:
    fill(root, "grows", text="x\n" * LINE_BYTES)
    size, going = 2 * LINE_BYTES, steps(workspace, pattern="needle")
    for _ in range(2):
        next(going)
    fill(root, "grows", text="x\n" * LINE_BYTES + "needle\n")
    result = the_end(going)
    assert (result.matches, result.searched_bytes) == ([], size)


@pytest.mark.usefixtures("bounded_memory")
def test_many_files_in_one_folder(workspace: Workspace, root: Path) -> None:
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for number in range(30_000):
        os.mknod(f"file{number}", dir_fd=folder)
    os.close(folder)
    result = searched(workspace, name="file*99")
    assert len(result.matches) == 300 or result.truncated
    assert len(searched(workspace, name="file*", most=10).matches) == 10


@pytest.mark.usefixtures("bounded_memory")
def test_a_tree_that_is_deeper_than_any_path(
    workspace: Workspace, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_SECONDS", 1.0)
    chain(root, ["d"] * 2500, "x")
    result = searched(workspace, name="x")
    assert result.truncated or (len(result.matches) > 2000 and result.unread == 2)
    # pytest's own removal is recursive.
    subprocess.run(["rm", "-rf", root / "d"], check=True)


def test_what_is_too_deep_to_be_named_is_counted(workspace: Workspace, root: Path) -> None:
    chain(root, ["d" * 250] * 20)
    result = searched(workspace, name="d*")
    assert (len(result.matches), result.unread) == (16, 1)
    subprocess.run(["rm", "-rf", root / ("d" * 250)], check=True)


def test_more_folders_than_are_held(
    workspace: Workspace, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(root, *(f"d{number}/x" for number in range(20)))
    monkeypatch.setattr(module, "MAX_WAITING_BYTES", 10 * module._WAITING_COST)
    result = searched(workspace, name="x")
    assert 0 < len(result.matches) < 20
    assert result.truncated


def test_names_that_no_request_can_name(workspace: Workspace, root: Path) -> None:
    os.mkdir(os.fsencode(root) + b"/\xff")
    Path(os.fsdecode(os.fsencode(root) + b"/\xff/x")).write_text("needle")
    Path(os.fsdecode(os.fsencode(root) + b"/\xfe")).write_text("needle")
    fill(root, "x")
    result = searched(workspace, pattern="needle")
    assert ([match.path for match in result.matches], result.unread) == (["/x"], 2)


def test_a_folder_that_is_gone_and_one_that_cannot_be_read(
    workspace: Workspace, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(root, "a/x", "b/x", "c/x", "d/x")

    def failing(fd: int, names: list[bytes]) -> int:
        if len(names) == 0 and (root / "a").exists():
            subprocess.run(["rm", "-rf", root / "b"], check=True)
        return confine.enter(fd, names)

    opening = os.open

    def opened(path: Any, *arguments: Any, **more: Any) -> int:
        if path == b"c":
            raise PermissionError(errno.EACCES, "no")
        return opening(path, *arguments, **more)

    monkeypatch.setattr(module, "enter", failing)
    monkeypatch.setattr(os, "open", opened)
    result = searched(workspace, name="x")
    assert ([match.path for match in result.matches], result.unread) == (["/a/x", "/d/x"], 1)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_server_without_descriptors_says_so(
    workspace: Workspace, root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """An answer that left out files for it would be taken for the truth."""
    fill(root, "x")

    def failing(*_: Any) -> int:
        raise OSError(number, "")

    monkeypatch.setattr(module, "open_regular", failing)
    with pytest.raises(LimitReached) as caught:
        searched(workspace, pattern="x", ignored=True)
    assert caught.value.code == "unavailable"


@pytest.mark.usefixtures("bounded_memory")
@pytest.mark.parametrize(
    "line", ["*a*a*a*a*b", "a/**/a/**/a/**/b", "[!a]*[!b]*[!c]*d", "?*?*?*?*?*x", "plain"], ids=str
)
def test_hostile_rules_cost_bounded_time(workspace: Workspace, root: Path, line: str) -> None:
    rules = "".join(f"{line}{number}\n" for number in range(100_000))
    for depth in range(20):
        fill(root, "/".join(["a" * 100] * depth + [".gitignore"]), text=rules)
        fill(root, "/".join(["a" * 100] * depth + ["x"]))
    begun = time.thread_time()
    assert len(paths(workspace, name="x")) <= 20
    assert time.thread_time() - begun < 2 * module.MAX_SECONDS


def test_deeper_rules_have_no_effect_when_there_is_no_room_for_them(
    workspace: Workspace, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(root, "a1", "d/a1", "d/b1", "d/e/c1")
    fill(root, ".gitignore", text="a?\n")
    fill(root, "d/.gitignore", text="b?\n" * 50)
    fill(root, "d/e/.gitignore", text="c?\n")
    assert paths(workspace, pattern="needle") == []
    monkeypatch.setattr(module, "MAX_RULES_SIZE", 100)
    assert paths(workspace, pattern="needle") == ["/d/b1"]
    monkeypatch.setattr(module, "MAX_RULE_BYTES", 1)
    assert paths(workspace, pattern="needle") == ["/d/b1", "/d/e/c1"]


def test_the_line_where_a_file_of_rules_is_cut_has_no_effect(workspace: Workspace, root: Path) -> None:
    fill(root, "first", "needle")
    rules = "first\n" + f"#{'x' * 98}\n" * (MAX_BYTES // 100 - 1)
    rules += "#" * (MAX_BYTES - len(rules) - 7) + "\nneedle"
    fill(root, ".gitignore", text=f"{rules}-and-more\n")
    assert len(rules) == MAX_BYTES
    assert paths(workspace, pattern="needle", name="[!.]*") == ["/needle"]


@pytest.mark.usefixtures("bounded_memory")
def test_rules_of_a_hundred_megabytes(workspace: Workspace, root: Path) -> None:
    fill(root, "first", "last")
    with open(root / ".gitignore", "wb") as file:
        file.write(b"first\n" + b"# comment\n" * (1 << 20))
        file.seek(100 << 20)
        file.write(b"\nlast\n")
    assert paths(workspace, pattern="needle") == ["/last"]


def chain(root: Path, names: list[str], file: str = "") -> None:
    """Directories inside each other, deeper than any path, with an empty file in each."""
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for name in names:
        if file:
            os.mknod(file, dir_fd=here)
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def test_no_step_is_long_below_many_folders(workspace: Workspace, root: Path) -> None:
    """The rules of each folder above are looked for from the top."""
    chain(root, ["d"] * 700)
    going, slowest = steps(workspace, "d/" * 700, name="x"), 0.0
    begun = time.thread_time()
    for _ in going:
        slowest = max(slowest, time.thread_time() - begun)
        begun = time.thread_time()
    assert slowest < 0.5
    subprocess.run(["rm", "-rf", root / "d"], check=True)
