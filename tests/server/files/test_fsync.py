"""Files between messages and the workspace, step by step; and a push on its way, in bounded memory."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mhnos_runtime.files import push_pull
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.server.files import fsync
from mhnos_runtime.server.files.fsync import MAX_WAITING_BYTES, PIECE_BYTES, Pull, Upload, events, head, write
from mhnos_runtime.wire import messages as m
from mhnos_runtime.wire.push import FileBegin, FileEnd, FilePiece


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    (tmp_path / "ws").mkdir()
    with Workspace(tmp_path / "ws") as opened:
        yield opened


# Uploads


class Moves:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


async def test_a_piece_waits_until_it_is_worth_a_turn_or_the_last() -> None:
    moved = Moves()
    upload = Upload(moved)
    upload.feed(b"x" * (PIECE_BYTES - 1), last=False)
    taking = asyncio.create_task(upload.take())
    await asyncio.sleep(0)
    assert not taking.done()
    upload.feed(b"y", last=False)
    data, last = await taking
    assert (len(data), last, moved.count) == (PIECE_BYTES, False, 1)
    upload.feed(b"", last=True)
    assert await upload.take() == (b"", True)


async def test_what_comes_before_it_is_taken_comes_in_one_piece() -> None:
    upload = Upload(Moves())
    upload.feed(b"1" * PIECE_BYTES, last=False)
    upload.feed(b"2", last=False)
    upload.feed(b"3", last=True)
    assert await upload.take() == (b"1" * PIECE_BYTES + b"23", True)


async def test_more_than_may_wait_is_full_until_it_is_taken() -> None:
    upload = Upload(Moves())
    upload.feed(b"x" * MAX_WAITING_BYTES, last=False)
    before = upload.full
    upload.feed(b"x", last=False)
    full = upload.full
    await upload.take()
    assert (before, full, upload.full) == (False, True, False)


async def test_what_comes_for_a_push_that_failed_is_thrown_away() -> None:
    moved = Moves()
    upload = Upload(moved)
    upload.feed(b"x" * (MAX_WAITING_BYTES + 1), last=False)
    upload.drop()
    assert (upload.full, moved.count) == (False, 1)
    upload.feed(b"x" * (MAX_WAITING_BYTES + 1), last=True)
    assert not upload.full


# Pushes


def test_a_message_becomes_events_and_what_is_wrong_stays_with_its_file() -> None:
    files = [
        m.FileEntry("/a", "file", content=msgspec.Raw(b"[1,2]"), mtime=5),
        m.FileEntry("/b", "directory"),
        m.FileEntry("/c", "file", content=msgspec.Raw(b"[999]")),
        m.FileEntry("/d", "file", content=msgspec.Raw(b'"x"')),
    ]
    found = [event for event in events(files) if event != b""]
    error = found[6].error if isinstance(found[6], FileEnd) else ""
    assert error.startswith("content: expected")
    assert found == [
        FileBegin("/a", "file"),
        b"\x01\x02",
        FileEnd(5, ""),
        FileBegin("/b", "directory"),
        FileEnd(None, ""),
        FileBegin("/c", "file"),
        FileEnd(None, error),
        FileBegin("/d", "file"),
        b"x",
        FileEnd(None, ""),
    ]


def test_events_become_files_one_step_each(workspace: Workspace, tmp_path: Path) -> None:
    with push_pull.Push(workspace) as writing:
        steps: list[FilePiece] = [
            FileBegin("/a", "file"),
            b"1",
            b"2",
            FileEnd(None, ""),
            FileBegin("/b", "file"),
            b"1",
            FileEnd(None, "wrong"),
            FileBegin("/c", "nothing"),
            FileEnd(None, "wrong as well"),
        ]
        assert len(list(write(writing, steps))) == len(steps)
        done = writing.result
    assert (done.synced, done.failed, done.errors[0]) == (1, 2, ("/b", "wrong"))
    # The first reason counts.
    assert "Kind is neither" in done.errors[1][1]
    assert {file.name: file.read_bytes() for file in (tmp_path / "ws").iterdir()} == {"a": b"12"}


# Pulls


def pulled(workspace: Workspace, skipped: tuple[str, ...] = ()) -> tuple[dict[str, Any], Pull]:
    walk = Pull(workspace, skipped)
    text = head("fsyncResult") + b"".join(walk.entries()) + walk.tail(msgspec.Raw(b'"id"'))
    return json.loads(text), walk


def test_an_empty_workspace(workspace: Workspace) -> None:
    answer, walk = pulled(workspace)
    assert (answer["files"], answer["status"], answer["id"], walk.error) == ([], "success", "id", "")
    assert "errors" not in answer
    assert answer["type"] == "fsyncResult"


def test_files_and_directories_in_pieces_are_json(workspace: Workspace, tmp_path: Path) -> None:
    root = tmp_path / "ws"
    (root / "d").mkdir()
    contents = {"/d/empty": b"", "/one": b"\xff", "/two pieces": os.urandom(fsync.PULL_CHUNK_BYTES + 1)}
    for path, data in contents.items():
        Path(f"{root}{path}").write_bytes(data)
    answer, _ = pulled(workspace)
    assert [entry["path"] for entry in answer["files"]] == ["/d", "/d/empty", "/one", "/two pieces"]
    found = {entry["path"]: bytes(entry["content"]) for entry in answer["files"] if entry["kind"] == "file"}
    assert found == contents
    assert all(entry["mtime"] > 0 for entry in answer["files"])


def test_what_cannot_be_read_is_named_and_the_others_come(workspace: Workspace, tmp_path: Path) -> None:
    root = tmp_path / "ws"
    (root / "a").write_text("x")
    (root / "b").symlink_to("/etc/passwd")
    (root / "c").write_text("y")
    answer, _ = pulled(workspace)
    assert [entry["path"] for entry in answer["files"]] == ["/a", "/c"]
    assert [failure["path"] for failure in answer["errors"]] == ["/b"]


def test_a_file_that_fails_when_it_is_read_leaves_no_half_of_an_entry(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / "ws" / name).write_text(name)

    def fail(_fd: int, _length: int, _at: int) -> bytes:
        raise OSError(5, "the disk")

    walk = Pull(workspace)
    entries = walk.entries()
    first = next(entries)
    monkeypatch.setattr(os, "pread", fail)
    text = head("fsyncResult") + first + b"".join(entries) + walk.tail(msgspec.UNSET)
    answer = json.loads(text)
    assert [entry["path"] for entry in answer["files"]] == ["/a"]
    assert [failure["path"] for failure in answer["errors"]] == ["/b"]


def test_so_many_of_what_was_left_out_are_named(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_pull, "MAX_LISTED_ERRORS", 3)
    for number in range(5):
        (tmp_path / "ws" / str(number)).symlink_to("/etc/passwd")
    assert len(pulled(workspace)[0]["errors"]) == 3


def test_too_much_at_once_is_an_error_and_what_came_is_not_all(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fsync, "MAX_PULL_BYTES", 10)
    for name in ("a", "b"):
        (tmp_path / "ws" / name).write_text("x" * 6)
    answer, walk = pulled(workspace)
    assert [entry["path"] for entry in answer["files"]] == ["/a"]
    assert (answer["status"], answer["error"]) == ("error", walk.error)
    assert walk.error != ""


def test_what_is_to_be_skipped_is(workspace: Workspace, tmp_path: Path) -> None:
    for path in ("/a/b", "/a/c"):
        folder = Path(f"{tmp_path}/ws{path}")
        folder.mkdir(parents=True)
        (folder / "x").write_text("x")
    answer, _ = pulled(workspace, ("/a/b",))
    assert [entry["path"] for entry in answer["files"]] == ["/a", "/a/c", "/a/c/x"]
