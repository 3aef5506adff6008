"""Signals to a process and all below it."""

from __future__ import annotations

import os
import select
import signal
import subprocess

from mhnos_runtime.supervisor import tree


def test_signals_have_names() -> None:
    assert [tree.signal_name(number) for number in (1, 9, 34, 35, 64)] == [
        "SIGHUP", "SIGKILL", "SIGRTMIN", "SIGRTMIN+1", "SIGRTMAX",
    ]  # fmt: skip


def test_killing_nobody_is_nothing() -> None:
    tree.kill([])
    tree.send([2**22 + 1], signal.SIGKILL)  # beyond the largest pid there can be


def test_a_tree_is_killed_to_its_last_process() -> None:
    """Those below a main process end with it, in sessions of their own too: the pipe that all of them hold is
    at its end."""
    script = "setsid sleep 60 & (sh -c 'sleep 60; :' & sleep 60; :) & echo; wait"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE) as main:
        assert main.stdout is not None
        assert main.stdout.readline() == b"\n"
        tree.kill([main.pid])
        assert main.wait(20) == -signal.SIGKILL
        assert select.select([main.stdout], [], [], 20)[0]
        assert os.read(main.stdout.fileno(), 1) == b""
