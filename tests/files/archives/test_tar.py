"""tar streams of real trees, as GNU tar and the standard library read them."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.files.archives import tar
from mhnos_runtime.files.archives.tar import RECORD, stream
from mhnos_runtime.files.archives.walk import SKIPPED_NAME
from mhnos_runtime.files.confine import Workspace
from tests.files.archives.packing import parsed, unpack

LONG = "n" * 200


def packed(root: Path) -> bytes:
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return b"".join(stream(top))
    finally:
        os.close(top)


def opened(root: Path) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(packed(root)))


def plant(root: Path) -> None:
    """Something of each kind that an archive can hold."""
    (root / "empty").touch()
    (root / "folder/in").mkdir(parents=True)
    (root / "folder").chmod(0o700)
    (root / "folder/run.sh").write_bytes(b"#!/bin/sh\n" * 100)
    (root / "folder/run.sh").chmod(0o755)
    (root / "ümlaut 日本").write_text("x")
    (root / LONG).write_text("long")
    (root / "large").write_bytes(os.urandom((2 << 20) + 13))
    (root / "link").symlink_to("folder/run.sh")
    (root / "far").symlink_to("/" + "x/" * 120)
    for number, path in enumerate(sorted(root.rglob("*"), reverse=True)):
        os.utime(path, (0, 1_000_000_000 + number), follow_symlinks=False)


def listed(root: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in root.rglob("*"):
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(root))] = (status.st_mode, int(status.st_mtime), content)
    return found


def test_gnu_tar_makes_the_same_tree_of_it(root: Path, tmp_path: Path, outside: Path) -> None:
    plant(root)
    (root / "twin").mkdir()
    subprocess.run(["tar", "xpf", "-", "-C", root / "twin"], input=packed(root), check=True)
    ours = listed(root / "twin")
    (root / "twin/twin").rmdir()
    ours.pop("twin")
    assert ours == {name: each for name, each in listed(root).items() if not name.startswith("twin")}


def test_it_comes_back_as_it_was(workspace: Workspace, root: Path) -> None:
    (root / "one").mkdir()
    plant(root / "one")
    # A link that leads out can be kept, and not be made.
    (root / "one/far").unlink()
    assert unpack(workspace, packed(root / "one"), "/two").failed == 0
    assert listed(root / "one") == listed(root / "two")


def test_names_that_are_not_utf8_are_kept(root: Path, tmp_path: Path) -> None:
    for name in (b"\xff short", b"\xfe" * 150):
        os.close(os.open(os.fsencode(root) + b"/" + name, os.O_CREAT | os.O_WRONLY, 0o644))
    assert sorted(entry.name for entry, _ in parsed(packed(root))) == [b"\xfe" * 150, b"\xff short"]
    shown = subprocess.run(
        ["tar", "tf", "-", "--quoting-style=literal"], input=packed(root), capture_output=True, check=True
    )
    assert sorted(shown.stdout.splitlines()) == [b"\xfe" * 150, b"\xff short"]


def test_special_bits_and_owners_stay_behind(root: Path) -> None:
    (root / "f").touch()
    (root / "f").chmod(0o6755)
    with opened(root) as archive:
        (one,) = archive.getmembers()
    assert (one.mode, one.uid, one.gid, one.uname) == (0o755, 0, 0, "")


@pytest.mark.parametrize("seconds", [-1, -(2**33), 0, 2**31, 2**33])
def test_times_that_do_not_fit_into_a_header(root: Path, seconds: int) -> None:
    (root / "f").touch()
    os.utime(root / "f", (0, seconds))
    written = int((root / "f").stat().st_mtime)  # A file system may know fewer.
    with opened(root) as archive:
        assert archive.getmembers()[0].mtime == written


def test_a_file_over_eight_gigabytes(root: Path) -> None:
    """With holes: only its beginning is read here."""
    (root / "huge").touch()
    os.truncate(root / "huge", 9 << 30)
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    pieces = stream(top)
    with tarfile.open(fileobj=io.BytesIO(next(pieces) + bytes(1024)), mode="r|") as archive:
        one = archive.next()
        assert one is not None
        assert (one.name, one.size) == ("huge", 9 << 30)
    pieces.close()
    os.close(top)


def test_what_is_left_out_stands_in_the_last_member(root: Path) -> None:
    os.mkfifo(root / "fifo")
    (root / "f").touch()
    with opened(root) as archive:
        last = archive.getmembers()[-1]
        file = archive.extractfile(last)
        assert file is not None
        assert (last.name, file.read()) == (
            SKIPPED_NAME,
            b"fifo: neither a file nor a directory nor a link\n",
        )


@pytest.mark.parametrize("size", [0, 1, 511, 512, 8192, 8704, 9216, 9728, 3_000_000])
def test_gnu_tar_leaves_nothing_in_the_pipe(root: Path, size: int) -> None:
    (root / "a").write_bytes(b"x" * size)
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    whole = b"".join(stream(top))
    os.close(top)
    assert len(whole) % tar.RECORD == 0
    assert whole.endswith(bytes(1024))


def test_nothing_at_all(root: Path) -> None:
    assert packed(root) == bytes(RECORD)


def test_small_files_are_put_together(root: Path) -> None:
    for number in range(600):
        (root / str(number)).write_bytes(b"x" * 1000)
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    sizes = [len(piece) for piece in stream(top)]
    os.close(top)
    assert min(sizes[:-1]) >= tar.OUT_BYTES // 2
    assert max(sizes) <= tar.OUT_BYTES + 2048


def test_quiet_steps_give_nothing(root: Path) -> None:
    for number in range(300):
        os.mkfifo(root / str(number))
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    assert b"" in list(stream(top))
    os.close(top)


@given(st.integers(0, 10**7), st.integers(0, 300))
def test_the_length_of_a_record_counts_itself(number: int, padding: int) -> None:
    record = tar._record(b"k" * padding, str(number).encode())
    assert int(record.split(b" ")[0]) == len(record)
