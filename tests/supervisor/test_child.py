"""What a start that fails says: nothing is left of the machine, or of what was to be executed."""

from __future__ import annotations

import errno
import os

import pytest

from mhnos_runtime.errors import LimitReached
from mhnos_runtime.supervisor import child


def failing(number: int) -> object:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOENT, errno.EIO])
def test_no_terminal_left_is_said(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "openpty", failing(number))
    with pytest.raises(LimitReached, match="no pseudo-terminal") as refused, child.Wiring((80, 24)):
        pass
    assert (refused.value.code, refused.value.retry) == ("no-pty", True)
    assert "pty/max" in refused.value.hint
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("pty", [None, (80, 24)])
@pytest.mark.parametrize("name", ["pipe2", "openpty"])
def test_no_descriptor_left_is_said(
    name: str, pty: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "openpty" and pty is None:
        return
    before = sorted(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, name, failing(errno.EMFILE))
    with pytest.raises(LimitReached, match="Too many open files") as refused, child.Wiring(pty):
        pass
    assert refused.value.code == "start-failed"
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("report", "code"),
    [
        (b"exec:2", "not-found"),
        (b"exec:20", "not-found"),
        (b"exec:13", "not-executable"),
        (b"exec:8", "not-executable"),
        (b"exec:7", "start-failed"),
        (b"limits:22", "start-failed"),
        (b"setup:RuntimeError('x')", "start-failed"),
        (b"", "start-failed"),
        (b"\xff\xfe", "start-failed"),
    ],
)
def test_each_report_of_a_child_has_a_reason(report: bytes, code: str) -> None:
    error = child.why_not(report, "/no/such/program")
    assert error.code == code
    assert error.message.startswith("/no/such/program: ")
