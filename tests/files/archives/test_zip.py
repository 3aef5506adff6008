"""zip streams of real trees, as Info-ZIP and the standard library read them."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path

import pytest

from mhnos_runtime.files.archives import zip as writing
from mhnos_runtime.files.archives.walk import SKIPPED_NAME
from mhnos_runtime.files.archives.zip import stream
from tests.files.archives.test_tar import listed, plant


def packed(root: Path) -> bytes:
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return b"".join(stream(top))
    finally:
        os.close(top)


def opened(root: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(packed(root)))


def test_the_standard_library_finds_everything(root: Path) -> None:
    plant(root)
    (root / "text").write_text("text " * (1 << 19))
    with opened(root) as archive:
        assert archive.testzip() is None
        for name, (mode, _, content) in listed(root).items():
            one = archive.getinfo(name + "/" if content is None else name)
            assert one.external_attr >> 16 == mode
            raw = content.encode() if isinstance(content, str) else content or b""
            assert archive.read(one) == raw
        assert archive.getinfo("text").compress_size < 1 << 16
        # What is compressed already is only framed.
        assert archive.getinfo("large").compress_size < (2 << 20) + 1000


@pytest.mark.skipif(shutil.which("unzip") is None, reason="there is no unzip")
def test_info_zip_makes_the_same_tree_of_it(root: Path) -> None:
    (root / "one").mkdir()
    plant(root / "one")
    (root / "a.zip").write_bytes(packed(root / "one"))
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    subprocess.run(["unzip", "-q", root / "a.zip", "-d", root / "two"], check=True, env=environment)
    ours, theirs = listed(root / "one"), listed(root / "two")
    # It gives links the time of the unpacking.
    for name in ("link", "far"):
        assert ours.pop(name)[2] == theirs.pop(name)[2]
    assert ours == theirs


def test_names_that_are_not_utf8_are_left_out_and_told(root: Path) -> None:
    os.close(os.open(os.fsencode(root) + b"/\xff", os.O_CREAT | os.O_WRONLY, 0o644))
    (root / "f").touch()
    with opened(root) as archive:
        assert archive.namelist() == ["f", SKIPPED_NAME]
        assert archive.read(SKIPPED_NAME) == b"\\udcff: zip has no place for names that are not UTF-8\n"
        assert archive.getinfo(SKIPPED_NAME).external_attr >> 16 == stat.S_IFREG | 0o644


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, (1980, 1, 1)), (1_700_000_001, (2023, 11, 14)), (2**32, (2106, 2, 7)), (2**33, (2107, 12, 31))],
)
def test_times(root: Path, seconds: int, shown: tuple[int, int, int]) -> None:
    (root / "f").touch()
    os.utime(root / "f", (0, seconds))
    if int((root / "f").stat().st_mtime) != seconds:
        pytest.skip("this file system does not know this time")
    with opened(root) as archive:
        (one,) = archive.infolist()
    assert one.date_time[:3] == shown
    assert (len(one.extra) > 0) == (seconds < 2**31)


def test_the_directory_of_many_is_not_kept_in_memory(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_KEPT_BYTES", 1000)
    for number in range(300):
        (root / str(number)).touch()
    with opened(root) as archive:
        assert len(archive.namelist()) == 300


def test_more_entries_than_the_old_format_counts(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were no more than 16 bits minus everything: the new records are read instead."""
    monkeypatch.setattr(writing, "MAX_16", 2)
    for number in range(3):
        (root / str(number)).write_text(str(number))
    data = packed(root)
    assert writing.END64_SIGN in data
    assert writing.LOCATOR_SIGN in data


def test_sizes_over_four_gigabytes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if 1 MiB were 4 GiB."""
    monkeypatch.setattr(writing, "_NEEDS_64", 1 << 20)
    (root / "large").write_bytes(b"x" * ((2 << 20) + 5))
    with opened(root) as archive:
        assert archive.testzip() is None
        assert archive.read("large") == b"x" * ((2 << 20) + 5)
    monkeypatch.setattr(writing, "MAX_32", 1 << 10)
    data = packed(root)
    assert writing.END64_SIGN in data


def test_quiet_steps_and_an_end_in_the_middle(root: Path) -> None:
    for number in range(300):
        os.mkfifo(root / str(number))
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    assert b"" in list(stream(top))
    (root / "large").write_bytes(os.urandom(4 << 20))
    pieces = stream(top)
    while not next(pieces):
        pass
    pieces.close()
    os.close(top)


def test_a_large_file_that_becomes_empty_as_it_begins() -> None:
    """Its content is then an empty deflate stream, never none."""
    assert writing.deflated(b"", 1) == b"\3\0"
