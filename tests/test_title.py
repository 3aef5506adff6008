"""Titles of the runtime's own processes: what ps shows of them."""

from __future__ import annotations

import os
import subprocess
import sys

from mhnos_runtime import title

TAKES = """
import sys
from mhnos_runtime import title
title.take(sys.argv[1] * int(sys.argv[2]))
shown = open("/proc/self/cmdline").read().rstrip("\\0")
print(open("/proc/self/comm").read().strip(), shown, sys.argv[1:], sep="|")
"""


def taken(role: str, times: int = 1) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", TAKES, role, str(times)], capture_output=True, text=True, check=True
    )
    return done.stdout.strip().split("|")


def test_a_process_is_shown_by_its_role_and_keeps_its_arguments() -> None:
    assert taken(title.SERVER) == ["mhnos-runtime", "mhnos-runtime: server", "['server', '1']"]


def test_a_title_that_does_not_fit_changes_no_arguments() -> None:
    comm, shown, *_arguments = taken("x", 5000)
    assert comm == "mhnos-runtime"
    assert shown.startswith(sys.executable)


def test_only_the_runtimes_own_processes_have_a_role() -> None:
    assert not title.has(os.getpid(), title.SUPERVISOR)
    assert not title.has(0, title.SERVER)
