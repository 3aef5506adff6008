"""Work on files in a process of its own, which is killed in the middle, and the start of the next server."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.leftovers import Clearing
from mhnos_runtime.files.partials import Partials
from mhnos_runtime.files.paths import PARTIAL_PREFIX
from tests.files.driving import drive

#: What Python tells of before it does it (sys.audit): between two of these, few things happen to files.
_MOMENTS = {"open", "os.mkdir", "os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir", "os.utime"}


def killed_at(moment: int, act: Callable[[], object]) -> bool:
    """Have it done by a process that is killed (SIGKILL) before it comes to this moment; False where it came
    to its end."""
    pid = os.fork()
    if pid == 0:
        left = moment

        def hook(event: str, _: object) -> None:
            nonlocal left
            if event in _MOMENTS:
                left -= 1
                if left < 0:
                    die()

        code = 1
        try:
            sys.addaudithook(hook)
            act()
            code = 0
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, -signal.SIGKILL), status
    return status != 0


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def start(root: Path, notes: Path) -> list[str]:
    """As a server does; what it tells."""
    told: list[str] = []
    with Workspace(root) as workspace:
        drive(Clearing(Partials(notes), workspace, told.append).sweep())
    return told


def partials(root: Path) -> list[str]:
    return [str(path.relative_to(root)) for path in sorted(root.rglob(PARTIAL_PREFIX + "*"))]
