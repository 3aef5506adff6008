"""The table of endings and exit codes."""

from __future__ import annotations

import pytest

from mhnos_runtime.cli import exits
from mhnos_runtime.client import ExitInfo


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (ExitInfo(0, None, "exit"), 0),
        (ExitInfo(3, None, "exit"), 3),
        (ExitInfo(255, None, "exit"), 255),
        (ExitInfo(None, "SIGINT", "signal"), 130),
        (ExitInfo(None, "SIGKILL", "memory"), 137),
        (ExitInfo(None, "SIGTERM", "killed"), 143),
        (ExitInfo(0, None, "killed"), 0),
        (ExitInfo(None, "SIGKILL", "timeout"), 124),
        (ExitInfo(0, None, "timeout"), 124),
        (ExitInfo(None, "SIGWEIRD", "signal"), 128),
        (ExitInfo(None, None, "lost"), 125),
    ],
)
def test_endings(ended: ExitInfo, code: int) -> None:
    assert exits.for_exit(ended) == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("not-executable", 126),
        ("start-failed", 126),
        ("not-found", 127),
        ("outside-workspace", 127),
        ("engine-missing", 127),
        ("unknown-kind", 125),
        ("too-many-processes", 125),
        ("internal", 125),
    ],
)
def test_start_failures(error: str, code: int) -> None:
    assert exits.for_start_failure(error) == code
