"""The one writer of a log: its file, its segments, and where it stops for a reader."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mhnos_runtime.output import LogWriter
from mhnos_runtime.output import layout as at
from tests.output.model import make, slots_of


def test_a_holder_is_not_overtaken_by_running_out_of_slots(path: Path) -> None:
    writer, reader = make(path, 0)
    reader.set_hold(0)
    count = 0
    while writer.room():
        writer.append(b"x", count % 2, 5)
        count += 1
    assert count == slots_of(reader)
    assert reader.tail == 0
    assert writer.block()
    assert reader.set_hold(1)
    assert writer.room()
    writer.close()
    reader.close()


def test_a_clock_that_is_set_back_begins_a_segment(path: Path) -> None:
    """Otherwise an hour's output would bear the time of before for an hour."""
    writer, reader = make(path, 4096)
    writer.append(b"a", 0, 10_000_000)
    writer.append(b"b", 0, 10_000_000 - 3_600_000)
    chunk = reader.read(1, 10)
    assert chunk is not None
    assert chunk.time_ms == 10_000_000 - 3_600_000
    writer.close()
    reader.close()


def test_who_finds_room_while_it_blocks_is_not_told_of_every_move(path: Path) -> None:
    """The mark "I wait" must not stay when the writer does not: each move would send a notice then."""
    writer, reader = make(path, 0)
    reader.set_hold(0)
    writer.append(b"x" * at.BURST_BYTES, 0, 5)
    assert not writer.room()
    reader.set_hold(100)
    assert not writer.block()
    assert reader.set_hold(200) is False
    writer.close()
    reader.close()


def test_the_next_hold_counts_after_one_was_passed_by(path: Path) -> None:
    writer, reader = make(path, 0)
    reader.set_hold(0)
    writer.append(b"x" * at.BURST_BYTES, 0, 5)
    assert writer.block()
    writer.pass_by()
    assert writer.room() == at.BURST_BYTES
    assert reader.set_hold(5000)
    assert writer.room() == 5000
    writer.append(b"y" * 5000, 0, 5)
    assert writer.room() == 0
    assert reader.tail == 5000
    writer.close()
    reader.close()


def test_the_next_hold_counts_also_where_it_leaves_no_room(path: Path) -> None:
    """Where slots had run out, a hold in the segment of the one that was passed by left no room; the writer
    took that for no answer, and overwrote what had not had its stall time."""
    writer, reader = make(path, 0)
    reader.set_hold(0)
    writer.append(b"x" * 2000, 0, 5)
    count = 0
    while writer.room():
        count += 1
        writer.append(b"y", count % 2, 5)
    assert writer.block()
    writer.pass_by()
    assert reader.set_hold(1000)
    assert writer.room() == 0
    assert reader.set_hold(2000)
    assert writer.room()
    writer.close()
    reader.close()


def test_no_space_leaves_nothing_behind(path: Path) -> None:
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom mhnos_runtime.output import LogWriter\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))\n"
        "try: LogWriter.create(Path(sys.argv[1]), 1 << 20)\n"
        "except OSError as error: print(error.errno)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == f"{errno.EFBIG}\n"
    assert not path.exists()


def test_a_full_disk_leaves_nothing_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = sorted(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        LogWriter.create(path, 1 << 20)
    assert not path.exists()
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_file_that_is_there_is_not_touched(path: Path) -> None:
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        LogWriter.create(path, 0)
    assert path.read_bytes() == b"mine"


def test_the_disk_is_taken_at_once_and_only_for_the_owner(path: Path) -> None:
    writer, reader = make(path, 1 << 20)
    status = path.stat()
    assert status.st_blocks * 512 >= (1 << 20) + at.BURST_BYTES
    assert status.st_mode & 0o777 == 0o600
    assert not os.get_inheritable(writer.fd)
    writer.close()
    reader.close()
