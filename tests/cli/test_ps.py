"""Rows of `ps`."""

from __future__ import annotations

import pytest

from mhnos_runtime.cli.ps import cells
from mhnos_runtime.wire.messages import ExitInfo, ProcessInfo

ROW = {"pid": 1001, "type": "shell", "command": "make", "args": ["-j", "2"], "status": "exited"}


def row(**fields: object) -> tuple[str, ...]:
    info = ProcessInfo(**{**ROW, "start_time": 1_000_000, **fields})  # type: ignore[arg-type]
    return cells(info, 1_060.0)


@pytest.mark.parametrize(
    ("code", "signal", "reason", "shown"),
    [
        (0, None, "exit", "exited (code 0)"),
        (3, None, "killed", "exited (code 3, killed)"),
        (None, "SIGSEGV", "signal", "exited (SIGSEGV)"),
        (None, "SIGKILL", "memory", "exited (SIGKILL, memory)"),
        (None, None, "lost", "exited (lost)"),
    ],
)
def test_how_it_ended(code: int | None, signal: str | None, reason: str, shown: str) -> None:
    ended = ExitInfo(code, signal, reason, "", 1, 1, None, 0, 1)  # type: ignore[arg-type]
    assert row(exit=ended)[4] == shown
