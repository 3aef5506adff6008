"""What stands at a path, as one value."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mhnos_runtime.files.entries import Entry, entry_at, entry_of, kind_of, text_of
from mhnos_runtime.files.version import version_of


def look(path: Path | bytes, told: str) -> Entry:
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        return entry_at(fd, told)
    finally:
        os.close(fd)


def test_a_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"content")
    file.chmod(0o4751)
    os.utime(file, ns=(0, 1_234_567_890))
    assert look(file, "/a.txt") == Entry(
        "/a.txt", "file", 7, 0o4751, 1234, version_of(file.stat()), target=None, opaque=False
    )


def test_a_directory_has_no_size(tmp_path: Path) -> None:
    entry = look(tmp_path, "/")
    assert (entry.kind, entry.size, entry.path) == ("directory", 0, "/")


@pytest.mark.parametrize(
    ("target", "told"), [(b"gone/away", "gone/away"), (b"/etc", "/etc"), (b"\xff", "\\xff")]
)
def test_a_link_is_itself_and_not_what_it_leads_to(tmp_path: Path, target: bytes, told: str) -> None:
    link = os.fsencode(tmp_path) + b"/link"
    os.symlink(target, link)
    entry = look(link, "/link")
    assert (entry.kind, entry.size, entry.target) == ("link", 0, told)


@pytest.fixture
def others(tmp_path: Path) -> Iterator[list[Path]]:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "socket"))
        yield [tmp_path / "fifo", tmp_path / "socket", Path("/dev/null")]


def test_what_is_neither_file_nor_directory_nor_link_is_other(others: list[Path]) -> None:
    assert [look(path, "/x").kind for path in others] == ["other"] * 3
    assert kind_of(0) == "other"


def test_a_name_that_is_not_utf8_is_shown_and_opaque(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    path = "/folder/" + os.fsdecode(b"b\xe9\xff")
    entry = entry_of((tmp_path / "a").stat(), path)
    assert (entry.path, entry.opaque) == ("/folder/b\\xe9\\xff", True)


def test_a_name_that_only_looks_like_one_is_not_opaque(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    entry = entry_of((tmp_path / "a").stat(), "/b\\xe9")
    assert (entry.path, entry.opaque) == ("/b\\xe9", False)


def test_a_text_for_people_can_always_be_encoded() -> None:
    for name, text in (
        (b"\xed\xa0\x80", b"\\xed\\xa0\\x80"),
        (b"\xf8", b"\\xf8"),
        (b"ok", b"ok"),
        ("ü".encode(), "ü".encode()),
    ):
        assert text_of(name).encode() == text


def test_every_change_right_after_the_look_makes_another_version(tmp_path: Path) -> None:
    """Times of a file move only with the kernel's clock: two changes in one of its ticks had one version."""
    file, seen = tmp_path / "a", set[str]()
    for turn in range(20):
        file.write_bytes(b"%02d" % turn)
        seen.add(look(file, "/a").version)
    assert len(seen) == 20
