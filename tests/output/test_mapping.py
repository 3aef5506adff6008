"""Which files are taken for logs, before anything of them is mapped."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import pytest

from mhnos_runtime.errors import Unavailable
from mhnos_runtime.output import LogReader, LogWriter
from mhnos_runtime.output import layout as at
from tests.output.model import make


def layouts() -> list[bytes]:
    good = bytearray(b"".join(n.to_bytes(8, sys.byteorder) for n in (at.MAGIC, at.VERSION, 1 << 17, 2048)))
    good += bytes(at.PAGE - len(good))
    newer = bytearray(good)
    newer[8] += 1
    huge = bytearray(good)
    huge[16:24] = b"\xff" * 8
    nothing = bytearray(good)
    nothing[16:32] = bytes(16)
    return [
        b"", b"x", b"x" * at.PAGE, b"x" * 10_000, bytes(at.PAGE), bytes(1 << 20), bytes(good),
        bytes(newer) + bytes(1 << 20), bytes(huge) + bytes(1 << 20), bytes(nothing) + bytes(1 << 20),
    ]  # fmt: skip


@pytest.mark.parametrize("content", layouts())
def test_a_file_of_another_layout_is_refused_and_closed(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    before = sorted(os.listdir("/proc/self/fd"))
    for kind in (LogReader, LogWriter):
        with pytest.raises(Unavailable):
            kind(os.open(path, os.O_RDWR))
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("word", "value"),
    [
        *((at.W_HEAD, 2**53), (at.W_TAIL, 2), (at.W_KEPT, 2), (at.W_OPENED, 2**63)),
        *(
            (at.W_CAPACITY, 4096),
            (at.W_CAPACITY, 2**64 - 1),
            (at.W_SLOTS, 0),
            (at.W_VERSION, 2),
        ),
    ],
)
def test_a_header_that_does_not_fit_is_refused_before_anything_is_mapped(
    tmp_path: Path, word: int, value: int
) -> None:
    LogWriter.create(tmp_path / "log", 4096).close()
    with open(tmp_path / "log", "r+b") as file:
        file.seek(word * 8)
        file.write(value.to_bytes(8, sys.byteorder))
    with pytest.raises(Unavailable):
        LogReader(os.open(tmp_path / "log", os.O_RDWR))


def test_a_file_shorter_than_its_header_says_is_refused(tmp_path: Path) -> None:
    """To touch what a mapping has beyond its file's end is a SIGBUS."""
    LogWriter.create(tmp_path / "log", 4096).close()
    for size in (tmp_path / "log").stat().st_size - 1, 4096, 4095, 0:
        os.truncate(tmp_path / "log", size)
        with pytest.raises(Unavailable):
            LogReader(os.open(tmp_path / "log", os.O_RDWR))


def test_closing_gives_everything_back(path: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(3):
        writer, reader = make(path, 0)
        writer.append(b"x", 0, 1)
        chunk = reader.read(0, 1)
        writer.close()
        reader.close()
        assert chunk is not None
        assert chunk.data == b"x"
        path.unlink()
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 0
