"""Versions: another one after every change, also of changes within one tick of the clock."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.files.version import check_version, settled, settled_all, version_of

CHANGES: dict[str, Callable[[Path, int], object]] = {
    "same length": lambda path, turn: path.write_bytes(b"%06d" % turn),
    "one byte in place": lambda path, turn: os.pwrite(turn_fd(path), bytes([turn % 256]), 0),
    "mode": lambda path, turn: path.chmod(0o600 + turn % 2),
    "mtime set back": lambda path, turn: os.utime(path, (1, 1)),
    "replaced": lambda path, turn: (
        path.with_name("n").write_bytes(b"%06d" % turn),
        path.with_name("n").replace(path),
    ),
    "a second name": lambda path, turn: os.link(path, path.with_name(f"link{turn}")),
}
_fds: dict[Path, int] = {}


def turn_fd(path: Path) -> int:
    if path not in _fds:
        _fds[path] = os.open(path, os.O_WRONLY)
    return _fds[path]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"000000")
    return path


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_makes_another_version(file: Path, change: str) -> None:
    """As fast as a program can: many of these changes are in one tick, and of one length."""
    seen = {version_of(settled(file.stat))}
    for turn in range(60):
        CHANGES[change](file, turn)
        seen.add(version_of(settled(file.stat)))
    assert len(seen) == 61
    if file in _fds:
        os.close(_fds.pop(file))


def test_what_does_not_change_keeps_its_version(file: Path) -> None:
    first = version_of(settled(file.stat))
    assert file.read_bytes()
    assert {version_of(settled(file.stat)) for _ in range(10)} == {first}


def test_many_wait_for_a_tick_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / str(number) for number in range(300)]
    for path in files:
        path.touch()
    waited: list[float] = []
    plain = time.sleep

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        plain(seconds)

    monkeypatch.setattr(time, "sleep", sleep)
    before = settled_all(os.stat, files)
    # A tick is 10 ms at most, and a look at all of them is more than nothing.
    assert len(waited) < 60
    for path in files:
        path.touch()
    after = settled_all(os.stat, files)
    for old, new in zip(before, after, strict=True):
        assert old is not None
        assert new is not None
        assert version_of(old) != version_of(new)


def test_what_is_gone_is_none(file: Path) -> None:
    assert settled_all({"a": file.stat(), "b": None}.get, ["a", "b"])[1] is None


def test_a_time_in_the_future_is_not_waited_for(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a clock that was set back: nobody waits for hours."""
    status = file.stat()
    monkeypatch.setattr(time, "clock_gettime_ns", lambda _: 0)
    assert settled(lambda: status) is status
    assert settled_all(lambda _: status, [0]) == [status]


@pytest.mark.parametrize(
    "text", ["", "0" * 23, "0" * 25, "G" + "0" * 23, "A" * 24, "0" * 23 + "\n", "é" * 24]
)
def test_what_is_no_version(text: str) -> None:
    with pytest.raises(InvalidRequest):
        check_version(text)


def test_a_version_is_one(file: Path) -> None:
    text = version_of(file.stat())
    assert check_version(text) == text
