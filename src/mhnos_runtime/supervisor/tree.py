"""Ends a process and all its descendants. Knows signals only.

Every main process is a subreaper, so its orphans stay below it. When it has ended, they become children of
the supervisor, which ends them.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable

from mhnos_runtime.proc import descendants

#: Rounds of looking for new descendants while they are stopped; a fork bomb needs a few.
_ROUNDS = 50


def send(os_pids: Iterable[int], number: int) -> None:
    """Send a signal to each; those that are gone or another user's are skipped."""
    for os_pid in os_pids:
        with contextlib.suppress(OSError):
            os.kill(os_pid, number)


def ask_to_end(os_pids: Iterable[int]) -> None:
    """As a terminal that hangs up, and as a service manager; a stopped one must go on to end."""
    os_pids = list(os_pids)
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGCONT):
        send(os_pids, number)


def kill(roots: Iterable[int]) -> None:
    """Kill the roots and all below them, so that none escapes by forking meanwhile.

    Each is stopped before its children are listed: a stopped process neither forks nor reaps, so the list
    stays true, and no pid in it can be reused.
    """
    roots = list(roots)
    stopped: set[int] = set()
    for _ in range(_ROUNDS):
        new = [os_pid for os_pid in descendants(roots) if os_pid not in stopped]
        if not new:
            break
        send(new, signal.SIGSTOP)
        stopped.update(new)
    send(stopped, signal.SIGKILL)


def signal_name(number: int) -> str:
    """SIGTERM, SIGRTMIN+3: Python's enumeration has only the first and last real-time signal."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"
