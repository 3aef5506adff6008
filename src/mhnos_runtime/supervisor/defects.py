"""Exceptions in the supervisor's own code: each ends one process or none, never the loop.

Knows processes by pid, and that they can fail.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from mhnos_runtime.supervisor.log import Log, place
from mhnos_runtime.supervisor.loop import Loop, Watching
from mhnos_runtime.supervisor.requests import BadRequest


class Defects:
    """fail(pid, what) ends the process with this number, if there is one."""

    def __init__(self, log: Log, fail: Callable[[int, str], None]) -> None:
        self._log = log
        self._fail = fail

    def tell(self, error: Exception, **fields: object) -> None:
        """Log an exception that belongs to no process; its work is left undone."""
        self._log.write("error", "a defect of the supervisor", exception=place(error), **fields)

    def charge(self, pid: int, error: Exception) -> None:
        """An exception in code for one process ends that process and no other."""
        self.tell(error, process=pid)
        try:
            self._fail(pid, place(error))
        except Exception as another:
            self.tell(another, process=pid)

    @contextlib.contextmanager
    def at_cost_of(self, pid: int) -> Iterator[None]:
        """An exception inside ends this process, except BadRequest, which is the server's."""
        try:
            yield
        except BadRequest:
            raise
        except Exception as error:
            self.charge(pid, error)

    def watching(self, loop: Loop, pid: int) -> Watching:
        """The loop for code that serves one process."""
        return loop.owned(lambda error: self.charge(pid, error))
