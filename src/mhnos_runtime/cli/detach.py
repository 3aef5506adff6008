"""`serve --detach`: starts in the background, and returns when the runtime answers or with the error it met.

Knows the child that becomes the supervisor, and its log; not what a start consists of.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from mhnos_runtime.cli import local
from mhnos_runtime.errors import MhnosError
from mhnos_runtime.supervisor import logfile

#: From the hand-over to the supervisor until the first server answers: some 0.5 s, more on a busy machine.
WAIT_S = 30.0
POLL_S = 0.02
#: How much of the log's end an error shows.
_TAIL_LINES, _TAIL_BYTES = 5, 4096

#: Is told ("warning" or "greeting", text).
Say = Callable[[str, str], None]


def detached(state_dir: Path, start: Callable[[Say], None], say: Say) -> None:
    """Carry out `start`, which starts the runtime in the place of its process, in a session of its own; say
    what that says, once the runtime answers. Raises MhnosError with what went wrong. The state directory is
    there already."""
    log = state_dir / logfile.NAME
    log_fd = _open(log)
    reader, writer = os.pipe()  # closed by exec, so its end says that the start is over
    sys.stdout.flush()
    os_pid = os.fork()
    if os_pid == 0:
        os.close(reader)
        _child(start, log_fd, writer)
    os.close(log_fd)
    os.close(writer)
    try:
        said = _told(reader)
        _wait(os_pid, state_dir, log)
    except BaseException:
        _end(os_pid)
        raise
    for kind, text in said:
        say(kind, text)
    say(
        "greeting",
        f"  pid        {os_pid} ({local.command_for(state_dir)} stop-server ends it)\n  log        {log}",
    )


def _open(log: Path) -> int:
    return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _child(start: Callable[[Say], None], log_fd: int, writer: int) -> NoReturn:
    """A session of its own: the end of the terminal is not this process's."""
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        for target, fd in enumerate((nothing, log_fd, log_fd)):
            os.dup2(fd, target)
        start(lambda kind, text: _tell(writer, kind, text))
    except MhnosError as error:
        _tell(writer, "error", error.message)
        _tell(writer, "hint", error.hint)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _tell(writer: int, kind: str, text: str) -> None:
    os.write(writer, json.dumps([kind, text]).encode() + b"\n")


def _told(reader: int) -> list[tuple[str, str]]:
    """What the child said until it was the supervisor or ended. Raises MhnosError with its error."""
    with open(reader, encoding="utf-8") as lines:
        said = [(kind, text) for kind, text in map(json.loads, lines)]
    told = dict(said)
    if "error" in told:
        raise MhnosError(told["error"], hint=told["hint"])
    return said


def _wait(os_pid: int, state_dir: Path, log: Path) -> None:
    until = time.monotonic() + WAIT_S
    while True:
        if os.waitpid(os_pid, os.WNOHANG)[0]:
            raise MhnosError(f"the runtime ended while it started:\n{_tail(log)}", hint=f"the log is {log}")
        try:
            local.health_of(state_dir)
            return
        except MhnosError as error:
            if time.monotonic() >= until:
                raise MhnosError(error.message, hint=f"the log, {log}, says why") from None
        time.sleep(POLL_S)


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-_TAIL_LINES:])


def _end(os_pid: int) -> None:
    """A start that is given up leaves nothing behind."""
    with contextlib.suppress(ChildProcessError):  # it has been reaped: the number may be another's
        if not os.waitpid(os_pid, os.WNOHANG)[0]:
            os.kill(os_pid, signal.SIGTERM)
            os.waitpid(os_pid, 0)
