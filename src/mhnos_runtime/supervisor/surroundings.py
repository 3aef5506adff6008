"""What a process runs in: namespaces, a control group, watched limits, a folder for temporary files.

Knows how each of them begins, is handed over and ends; not what the program writes or when it is signalled.
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Callable, Collection
from typing import TypeAlias

from mhnos_runtime.errors import LimitReached
from mhnos_runtime.launch import Limits
from mhnos_runtime.supervisor import watchdog
from mhnos_runtime.supervisor.cgroup import Group
from mhnos_runtime.supervisor.holder import Namespaces, NamespacesState
from mhnos_runtime.supervisor.loop import Timer, Watching
from mhnos_runtime.supervisor.temporary import TemporaryFolders

#: Gives the OS pids of the process and of those within it, whose limits are the same ones.
Roots: TypeAlias = Callable[[], Collection[int]]


def no_limits(error: OSError) -> LimitReached:
    """The error for a control group that cannot be made or limited."""
    return LimitReached(
        f"the limits could not be set: {error}",
        code="start-failed",
        hint="mhnos-runtime doctor tells where control groups can be made",
    )


class Surroundings:
    """Owns the namespaces and the control group. peak_bytes: the most memory that was measured, if it was.
    temporary: path of the folder for temporary files, if one was made."""

    temporary = ""

    def __init__(
        self, loop: Watching, limits: Limits, namespaces: Namespaces | None, group: Group | None
    ) -> None:
        self.namespaces = namespaces
        self.peak_bytes = 0
        self._loop = loop
        self._limits = limits
        self._group = group
        self._timer: Timer | None = None
        self._looks = 0
        self._searched_bytes = 0
        self._when_gone: Callable[[], None] | None = None
        self._remove_temporary: Callable[[], None] | None = None
        if namespaces is not None:
            namespaces.on_gone = self._namespaces_gone

    @classmethod
    def make(
        cls, loop: Watching, limits: Limits, group: Group | None, namespaces: Namespaces | None
    ) -> Surroundings:
        """group: made for it, if control groups enforce its limits. Raises LimitReached if they cannot be
        set, and removes the group then."""
        if group is not None:
            try:
                group.limit(limits)
            except OSError as error:
                group.close()
                raise no_limits(error) from error
        return cls(loop, limits, namespaces, group)

    def make_temporary(self, folders: TemporaryFolders, pid: int, user: tuple[int, int] | None) -> None:
        """Make a folder for temporary files. Raises LimitReached."""
        self.own_temporary(folders, pid)
        try:
            self.temporary = folders.make(pid, user)
        except OSError as error:
            raise LimitReached(
                f"no folder for temporary files could be made in {folders.place}: {error.strerror}",
                code="disk-full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "start-failed",
                hint=f"free some space there, and let the runtime's user write to {folders.place}",
            ) from error

    def own_temporary(self, folders: TemporaryFolders, pid: int) -> None:
        """Remove the folder that `folders` has for this process at its end."""
        self.temporary = folders.path(pid)
        self._remove_temporary = lambda: folders.remove(pid)

    @classmethod
    def restore(cls, loop: Watching, limits: Limits, pid: int, state: NamespacesState | None) -> Surroundings:
        namespaces = None if state is None else Namespaces.restore(loop, state)
        return cls(loop, limits, namespaces, Group(limits.cgroups, pid) if limits.cgroups else None)

    def state(self) -> NamespacesState | None:
        """What `restore` needs."""
        return None if self.namespaces is None or self.namespaces.gone else self.namespaces.state()

    @property
    def doors(self) -> tuple[str, ...]:
        """Files through which the child joins its control groups."""
        return () if self._group is None else self._group.doors

    def watch(self, roots: Roots, end: Callable[[str], None]) -> None:
        """Call `end` with a reason when a limit is exceeded that the kernel does not enforce."""
        if self._group is not None and self._group.watch_memory():
            self._loop.watch(self._group.oom_fd, lambda: self._out_of_memory(end))
        if self._limits.watched():
            self._look(roots, end)

    def _out_of_memory(self, end: Callable[[str], None]) -> None:
        if self._group is not None:
            self._loop.unwatch(self._group.oom_fd)
        end("memory")

    def _look(self, roots: Roots, end: Callable[[str], None]) -> None:
        found = roots()
        seen = watchdog.look(found, self._limits, self._unmapped_bytes(found))
        self.peak_bytes = max(self.peak_bytes, seen.memory_bytes)
        if seen.reason:
            end(seen.reason)
        self._timer = self._loop.after(watchdog.INTERVAL_SECONDS, lambda: self._look(roots, end))

    def _unmapped_bytes(self, roots: Collection[int]) -> int:
        """Bytes of files in memory, which count as memory unless a control group counts them."""
        if not self._limits.memory_bytes or self._limits.held("memory"):
            return 0
        if self._looks % watchdog.LOOKS_A_SEARCH == 0:
            self._searched_bytes = watchdog.searched(roots)
        self._looks += 1
        private = () if self.namespaces is None else self.namespaces.in_memory
        return self._searched_bytes + watchdog.used(private)

    def main_ended(self) -> None:
        """The main process has been reaped: limits are no longer watched, and its orphans must end."""
        if self._timer is not None:
            self._timer.cancel()
        if self.namespaces is not None:
            self.namespaces.wind_down()

    def when_gone(self, callback: Callable[[], None]) -> bool:
        """Whether nothing is left in the namespaces. If something is, call back when it is gone."""
        if self.namespaces is None or self.namespaces.gone:
            return True
        self._when_gone = callback
        return False

    def _namespaces_gone(self) -> None:
        if self._when_gone is not None:
            # Through the loop, so that an exception is charged to this process.
            self._loop.after(0.0, self._when_gone)

    def reason(self, code: int, known: str) -> str:
        """Why it ended: `known`, or that the kernel killed it for its memory, and then also the peak."""
        if not known and self.memory_killed(code):
            known = "memory"
        if known == "memory" and self._group is not None:
            self.peak_bytes = max(self.peak_bytes, self._group.peak_bytes() or 0)
        return known

    def memory_killed(self, code: int) -> bool:
        """Whether a process here that ended with this exit code was killed by the kernel for its memory."""
        return code == -signal.SIGKILL and self._group is not None and self._group.memory_kills() > 0

    def close(self) -> None:
        """End and close all of it. May be called again."""
        if self._timer is not None:
            self._timer.cancel()
        if self._group is not None:
            if self._group.oom_fd >= 0:
                self._loop.unwatch(self._group.oom_fd)
            self._group.close()
        if self.namespaces is not None:
            self.namespaces.kill()
        if self._remove_temporary is not None:
            self._remove_temporary()
