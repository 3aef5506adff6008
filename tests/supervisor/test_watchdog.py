"""What the watchdog sees of a tree where no control group counts: on real processes. Knows no supervisor."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mhnos_runtime.launch import Limits
from mhnos_runtime.proc import rss_bytes
from mhnos_runtime.supervisor import watchdog

MIB = 1 << 20
NOBODY = 65534
PREPARE = """
import ctypes, mmap, os, sys
kept = []
def memory_file(size):
    kept.append(os.memfd_create("test"))
    for _ in range(size >> 20):
        os.write(kept[-1], bytes(1 << 20))
    return kept[-1]
"""


@contextlib.contextmanager
def child(code: str) -> Iterator[int]:
    """A process that has run this and waits; its OS pid."""
    command = [sys.executable, "-c", PREPARE + code + "\nprint(flush=True); sys.stdin.read()"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd="/",
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        yield process.pid
        process.kill()


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Like an ordinary user's supervisor, where the test may."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_memory_files_count_mapped_or_not() -> None:
    """They are in no process's resident set: one with 60 GB of them passed for small."""
    with child("memory_file(64 << 20)") as pid:
        assert 64 * MIB <= watchdog.searched([pid]) < 65 * MIB
        assert rss_bytes(pid) < 40 * MIB
        limits = Limits(memory_bytes=65 * MIB)
        assert watchdog.look([pid], limits).reason == ""
        assert watchdog.look([pid], limits, watchdog.searched([pid])).reason == "memory"


def test_a_memory_file_counts_once() -> None:
    """Whoever has it open or mapped, here both, twice."""
    code = "fd = memory_file(64 << 20); m = mmap.mmap(fd, 64 << 20); sum(m[::4096]); os.dup(fd); os.fork()"
    with child(code) as pid:
        assert 64 * MIB <= watchdog.searched([pid]) < 65 * MIB
        seen = watchdog.look([pid], Limits(memory_bytes=64 * MIB), watchdog.searched([pid]))
        assert 64 * MIB < seen.memory_bytes < 110 * MIB


def test_what_only_looks_like_a_memory_file_is_not_asked(tmp_path: Path) -> None:
    """A file system that a process serves itself could let the question wait for ever."""
    code = f"os.chdir({str(tmp_path)!r}); kept.append(open('memfd:x', 'wb')); kept[0].write(bytes(1 << 20))"
    with child(code) as pid:
        assert watchdog.searched([pid]) == 0


def test_the_search_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "_SEARCHED", 10)
    with child("for _ in range(100): memory_file(1 << 20)") as pid:
        assert 0 < watchdog.searched([pid]) <= 10 * MIB


def test_a_process_that_cannot_be_looked_into_counts_in_full() -> None:
    """What forbids others to look (prctl(2), PR_SET_DUMPABLE) counted as nothing, and had no limit."""
    code = "ctypes.CDLL(None).prctl(4, 0, 0, 0, 0); kept.append(bytearray(os.urandom(1)) * (64 << 20))"
    if os.geteuid() == 0:
        code = f"os.setresuid({NOBODY}, {NOBODY}, {NOBODY}); {code}"
    with child(code) as pid, as_nobody():
        with pytest.raises(PermissionError):
            Path(f"/proc/{pid}/smaps_rollup").read_text()
        assert watchdog.look([pid], Limits(memory_bytes=32 * MIB)).reason == "memory"
