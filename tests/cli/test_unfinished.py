"""What an interrupted copy leaves, and who finds it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mhnos_runtime.cli.unfinished import UploadNote, drop_other_parts, part_path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mhnos-runtime" / "uploads"


def note(source: Path, url: str = "http://a", path: str = "/x") -> UploadNote:
    return UploadNote(url, path, str(source), source.stat())


def test_the_same_file_to_the_same_place_is_found_again(tmp_path: Path, cache: Path) -> None:
    source = tmp_path / "big"
    source.write_text("content")
    assert note(source).read() is None
    note(source).keep("upload-1")
    assert note(source).read() == "upload-1"
    assert note(source, path="/y").read() is None
    assert note(source, url="http://b").read() is None
    assert cache.stat().st_mode & 0o777 == 0o700
    source.write_text("changed")
    os.utime(source, (1, 1))
    assert note(source).read() is None


def test_a_note_that_is_done_or_damaged_is_none(tmp_path: Path, cache: Path) -> None:
    source = tmp_path / "big"
    source.write_text("content")
    note(source).keep("upload-1")
    [stored] = cache.iterdir()
    for damaged in (b"", b"../../x", b"\xff\xfe", b"a" * 300):
        stored.write_bytes(damaged)
        assert note(source).read() is None
    note(source).drop()
    note(source).drop()
    assert list(cache.iterdir()) == []


def test_old_notes_are_forgotten(tmp_path: Path, cache: Path) -> None:
    source, other = tmp_path / "big", tmp_path / "other"
    source.write_text("content")
    other.write_text("content")
    note(source).keep("upload-1")
    [stored] = cache.iterdir()
    os.utime(stored, (1, 1))
    note(other).keep("upload-2")
    assert note(source).read() is None
    assert note(other).read() == "upload-2"


def test_where_nothing_can_be_kept_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    note(tmp_path / "file").keep("upload-1")
    assert note(tmp_path / "file").read() is None


def test_parts_of_other_versions_are_dropped(tmp_path: Path) -> None:
    target = str(tmp_path / "big.iso")
    old, new = (part_path("http://a", "/big", version, target) for version in ("1" * 24, "2" * 24))
    other = part_path("http://a", "/other", "1" * 24, target)
    for path in (old, new, other):
        Path(path).write_text("part")
    drop_other_parts(new)
    assert sorted(map(str, tmp_path.iterdir())) == sorted([new, other, *map(str, tmp_path.glob("cache*"))])


@pytest.mark.parametrize("version", ["/../../key", "../x", "", "\0", "x" * 5000])
def test_a_part_is_beside_its_target_whatever_a_server_calls_the_version(
    tmp_path: Path, version: str
) -> None:
    """A server that lies could name any file that is then written, or removed as a part of another version:
    a directory that was downloaded before may have the name that the path begins with."""
    part = part_path("http://a", "/x", version, str(tmp_path / "x"))
    assert os.path.dirname(os.path.normpath(part)) == str(tmp_path)
    Path(part).write_bytes(b"part")
