"""The notes of what has a partial name: whatever stands in their folder, a server goes on."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mhnos_runtime.files import partials as module
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.leftovers import Clearing
from mhnos_runtime.files.partials import Left, Partials, Place
from mhnos_runtime.files.paths import PARTIAL_PREFIX
from tests.files.driving import drive
from tests.files.killed import start

NAME = f"{PARTIAL_PREFIX}a".encode()


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state") / "partials"


def found(folder: Path) -> list[Left]:
    """All notes of servers that are gone."""
    notes: list[Left] = []
    for leftovers in Partials(folder).left():
        with leftovers:
            notes += [left for left in leftovers if left is not None]
    return notes


def status_of(path: Path) -> os.stat_result:
    return os.stat(path)


def test_a_note_says_where_and_which(folder: Path, tmp_path: Path) -> None:
    partials = Partials(folder)
    first = partials.begin((b"a", b"\xff"), NAME)
    second = partials.begin((), NAME)
    assert found(folder) == []
    status = status_of(tmp_path)
    first.made(status)
    second.exchanged(b"target", status)
    partials.close()
    made = (status.st_dev, status.st_ino)
    assert found(folder) == [
        Left(Place(b"a/\xff", NAME), made),
        Left(Place(b"", NAME, b"target", made), None),
    ]


def test_a_place_is_used_again(folder: Path) -> None:
    partials = Partials(folder)
    for _ in range(10):
        partials.begin((b"a",), NAME).end()
    partial = partials.begin((b"b",), NAME)
    [file] = folder.iterdir()
    assert file.stat().st_size < module.PLACE_BYTES
    partials.close()
    assert [left.place.folder for left in found(folder)] == [b"b"]
    partial.end()


def test_what_cannot_be_noted_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_NOTES", 1)
    partials = Partials(folder)
    notes = [partials.begin((b"a" * 5,), NAME) for _ in range(3)]
    notes.append(Partials(None).begin((), NAME))
    notes[0].note(Place(b"a" * 9000, NAME))
    for note in notes:
        note.made(status_of(folder))
        note.end()
        note.end()
    partials.close()
    blocked = folder / "file"
    blocked.touch()
    Partials(blocked / "below").begin((), NAME).end()
    assert list(Partials(None).left()) == []
    assert list(Partials(folder / "missing").left()) == []


def test_a_folder_with_anything_in_it(folder: Path, root: Path) -> None:
    folder.mkdir()
    os.mkfifo(folder / "fifo")
    (folder / "directory").mkdir()
    (folder / "link").symlink_to("/dev/zero")
    (folder / "empty").touch()
    (folder / "noise").write_bytes(os.urandom(100_000))
    assert start(root, folder) == []
    assert sorted(os.listdir(folder)) == ["directory", "fifo", "link"]


def written(folder: Path, place: Any, made: tuple[int, int]) -> None:
    folder.mkdir(exist_ok=True)
    text = msgspec.json.encode(place)
    (folder / "note").write_bytes(struct.pack("<QQII", *made, len(text), zlib.crc32(text)) + text)


@pytest.mark.parametrize(
    "place",
    [
        {"folder": b"", "name": b"precious"},
        {"folder": b"", "name": NAME + b"/../precious"},
        {"folder": b"sub/..", "name": NAME},
        {"folder": b"sub/.", "name": NAME},
        {"folder": b"", "name": NAME, "version": 2},
        {"folder": b"", "name": NAME, "more": 1},
        {"folder": b""},
        {"folder": b"", "name": NAME, "target": b"../up"},
        {"folder": b"", "name": NAME, "target": b".."},
        [],
    ],
)
def test_a_note_of_another_form_removes_nothing(folder: Path, root: Path, place: Any) -> None:
    (root / "precious").write_text("x")
    (root / "sub").mkdir()
    (root / os.fsdecode(NAME)).write_text("x")
    wanted = root / (
        "precious" if isinstance(place, dict) and place.get("name") == b"precious" else os.fsdecode(NAME)
    )
    status = status_of(wanted)
    written(folder, place, (status.st_dev, status.st_ino))
    assert start(root, folder) == []
    assert sorted(os.listdir(root)) == sorted([os.fsdecode(NAME), "precious", "sub"])
    assert os.listdir(folder) == []


def test_what_cannot_be_removed_is_told_once_and_tried_again(
    folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / os.fsdecode(NAME)).write_text("x")
    status = status_of(root / os.fsdecode(NAME))
    written(folder, Place(b"", NAME), (status.st_dev, status.st_ino))
    unlink = os.unlink

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "")

    told: list[str] = []
    with Workspace(root) as workspace:
        clearing = Clearing(Partials(folder), workspace, told.append)
        monkeypatch.setattr(os, "unlink", refuse)
        drive(clearing.sweep())
        drive(clearing.sweep())
        monkeypatch.setattr(os, "unlink", unlink)
        assert len(told) == 1
        drive(clearing.sweep())
    assert os.listdir(root) == os.listdir(folder) == []
