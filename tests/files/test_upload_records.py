"""Records of uploads: what a killed server, another version or somebody else left there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mhnos_runtime.errors import LimitReached, Unavailable
from mhnos_runtime.files.draft import Kept
from mhnos_runtime.files.upload_records import MAX_RECORD_BYTES, Done, Record, Records, is_id, new_id


def record(**values: object) -> Record:
    usual: dict[str, object] = {
        "id": new_id(),
        "principal": "operator",
        "path": "/\u00e4/b",
        "kept": Kept(".mhnos-push-x", 5, 2**53),
        "length": 7,
        "created": 12.5,
    }
    return Record(**{**usual, **values})  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "uploads"


def test_what_is_saved_is_loaded(folder: Path) -> None:
    records = Records(folder)
    assert list(records.load()) == []
    first = record(metadata="path L2E=", mode=0o640, mtime_ms=-5, versions=frozenset({"a" * 24}))
    second = record(length=None, unchecked_from=3, absent=True, done=Done("b" * 24, 0o644, 7, 1.5))
    for each in (first, second):
        records.save(each)
    assert {each.id: each for each in Records(folder).load()} == {first.id: first, second.id: second}
    records.remove(first.id)
    records.remove(first.id)
    assert list(Records(folder).load()) == [second]
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_longest_fits(folder: Path) -> None:
    longest = record(path="/" + "\x01" * 4095, metadata="A" * 8190, principal="token:" + "x" * 64)
    Records(folder).save(longest)
    assert list(Records(folder).load()) == [longest]


@pytest.mark.parametrize(
    "spoil",
    [b"", b"{", b'{"version":1}', b"[" * 100_000, b"x" * (MAX_RECORD_BYTES + 1), b"\xff\xfe"],
)
def test_what_is_no_record_is_passed_over_and_removed_when_it_is_old(folder: Path, spoil: bytes) -> None:
    records, good = Records(folder), record()
    records.save(good)
    bad = folder / f"{'0' * 32}.json"
    bad.write_bytes(spoil)
    assert list(records.load()) == [good]
    assert bad.exists()
    os.utime(bad, (0, 0))
    assert list(records.load()) == [good]
    assert not bad.exists()


def test_of_another_version_or_under_another_name(folder: Path) -> None:
    records, good = Records(folder), record()
    records.save(good)
    path = folder / f"{good.id}.json"
    text = path.read_text()
    path.write_text(text.replace('"version":1', '"version":2', 1))
    (folder / f"{new_id()}.json").write_text(text)
    assert list(records.load()) == []


def test_odd_files_there(folder: Path, tmp_path: Path) -> None:
    folder.mkdir()
    os.mkfifo(folder / f"{new_id()}.json")
    (tmp_path / "elsewhere").write_text("{}")
    (folder / f"{new_id()}.json").symlink_to(tmp_path / "elsewhere")
    (folder / ".draft.of.a.killed.server").write_text("{")
    assert list(Records(folder).load()) == []
    assert len(os.listdir(folder)) == 2


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [(errno.ENOSPC, LimitReached, "disk-full"), (errno.EIO, Unavailable, "unavailable")],
)
def test_a_disk_that_takes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception], code: str
) -> None:
    records, old = Records(folder), record()
    records.save(old)

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr("mhnos_runtime.files.upload_records.os.fsync", fail)
        with pytest.raises(kind) as caught:
            records.save(record(id=old.id, length=8))
    assert getattr(caught.value, "code", "") == code
    assert os.listdir(folder) == [f"{old.id}.json"]
    assert list(records.load()) == [old]


@pytest.mark.parametrize("text", ["", "x", "A" * 32, "0" * 31, "0" * 33, "0" * 31 + "\n", "../" * 10 + "ab"])
def test_what_is_no_id(text: str) -> None:
    assert not is_id(text)
    assert is_id(new_id())
