"""The log file of a runtime in the background: it stays bounded, and whoever writes goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mhnos_runtime.supervisor import logfile
from mhnos_runtime.supervisor.logfile import LogFile
from mhnos_runtime.supervisor.loop import Loop
from tests.supervisor.running import until


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    monkeypatch.setattr(logfile, "MOST_BYTES", 100)
    monkeypatch.setattr(logfile, "LOOK_SECONDS", 0.001)
    made = Loop()
    yield made
    made.close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / logfile.NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    yield fd
    os.close(fd)


def test_a_full_file_is_turned_over_and_its_writers_go_on(tmp_path: Path, loop: Loop, log: int) -> None:
    file, old = tmp_path / logfile.NAME, tmp_path / logfile.OLD_NAME
    LogFile(loop, tmp_path, log).watch()
    other = os.dup(log)  # as the server has it
    for turn in range(3):
        lines = f"{turn} a line\n" * 20
        os.write(other, lines.encode())
        until(loop, lambda: file.stat().st_size == 0)
        assert old.read_text() == lines
    os.close(other)
    os.write(log, b"after\n")
    assert file.read_text() == "after\n"
    assert old.stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_not_full_is_left_alone(tmp_path: Path, loop: Loop, log: int) -> None:
    os.write(log, b"short\n")
    LogFile(loop, tmp_path, log).watch()
    assert (tmp_path / logfile.NAME).read_text() == "short\n"
    assert not (tmp_path / logfile.OLD_NAME).exists()


def test_it_is_cut_where_it_cannot_be_copied(tmp_path: Path, loop: Loop, log: int) -> None:
    (tmp_path / logfile.OLD_NAME).mkdir()
    os.write(log, b"x" * 200)
    LogFile(loop, tmp_path, log).watch()
    assert (tmp_path / logfile.NAME).stat().st_size == 0


def test_another_log_is_nobody_s_business(tmp_path: Path, loop: Loop, log: int) -> None:
    elsewhere = os.open(tmp_path / "elsewhere", os.O_WRONLY | os.O_CREAT)
    os.write(elsewhere, b"x" * 200)
    os.write(log, b"y" * 200)
    LogFile(loop, tmp_path, elsewhere).watch()
    os.close(elsewhere)
    assert (tmp_path / "elsewhere").stat().st_size == (tmp_path / logfile.NAME).stat().st_size == 200
