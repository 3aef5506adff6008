"""How endings become exit codes. Knows the customs of shells, timeout(1) and docker; knows no process."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mhnos_runtime.client.types import ExitInfo

OK = 0
FAILED = 1
TROUBLE = 2  # grep(1): an error, where 1 means that nothing was found
TIMED_OUT = 124  # timeout(1)
RUNTIME_FAILED = 125  # docker run: the runtime itself failed, not the program
NOT_EXECUTABLE = 126  # POSIX shells: found and not executable
NOT_FOUND = 127  # POSIX shells
SIGNAL_BASE = 128  # POSIX shells: ended by a signal
INTERRUPTED = SIGNAL_BASE + signal.SIGINT
READER_GONE = SIGNAL_BASE + signal.SIGPIPE  # as `yes | head` shows for yes

_START_FAILURES = {
    "not-executable": NOT_EXECUTABLE,
    "start-failed": NOT_EXECUTABLE,
    "not-found": NOT_FOUND,
    "engine-missing": NOT_FOUND,
    "outside-workspace": NOT_FOUND,
}


def for_signal(name_or_number: str | int) -> int:
    """128+N; 128 alone for a signal this system has no number for."""
    if isinstance(name_or_number, int):
        return SIGNAL_BASE + name_or_number
    try:
        return SIGNAL_BASE + int(signal.Signals[name_or_number])
    except KeyError:
        return SIGNAL_BASE


def for_exit(exit_: ExitInfo) -> int:
    """What a shell would show for a process that ended so."""
    if exit_.reason == "timeout":
        return TIMED_OUT
    if exit_.signal:
        return for_signal(exit_.signal)
    return RUNTIME_FAILED if exit_.code is None else exit_.code & 0xFF


def for_start_failure(code: str) -> int:
    """The exit code for an error code with which the server refused to start a program."""
    return _START_FAILURES.get(code, RUNTIME_FAILED)
