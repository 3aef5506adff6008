"""What a process within another one runs in: the surroundings of that one, its host, which it joins and must
not end.

Knows how its own orphans end there; not who started it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from mhnos_runtime.launch import LaunchPlan
from mhnos_runtime.proc import descendants
from mhnos_runtime.supervisor import tree
from mhnos_runtime.supervisor.cgroup import Group, Hierarchies
from mhnos_runtime.supervisor.holder import LEFTOVER_SECONDS, LOOK_SECONDS, Namespaces
from mhnos_runtime.supervisor.leftovers import UNKILLABLE_SECONDS
from mhnos_runtime.supervisor.loop import Timer, Watching
from mhnos_runtime.supervisor.state import ProcessState
from mhnos_runtime.supervisor.surroundings import Roots, Surroundings
from mhnos_runtime.supervisor.temporary import TemporaryFolders


class Member(Protocol):
    """A process that shares what it runs in, see `Process`."""

    surroundings: Surroundings | Within

    @property
    def pid(self) -> int: ...

    @property
    def os_pid(self) -> int: ...

    @property
    def main_status(self) -> int | None: ...

    def end_with_host(self) -> None: ...


class Groups(Protocol):
    """The maker of control groups in advance, see `Launcher`."""

    def group(self, pid: int, hierarchies: Hierarchies) -> Group | None: ...

    def discard(self) -> None: ...


class Within:
    """Like `Surroundings`, for a process within another one. peak_bytes: nobody measures its own."""

    peak_bytes = 0

    def __init__(self, loop: Watching, host: Surroundings | Within) -> None:
        self._loop = loop
        self._host = host
        self._orphans_gone = False
        self._when_gone: Callable[[], None] | None = None
        self._timer: Timer | None = None

    @property
    def namespaces(self) -> Namespaces | None:
        return self._host.namespaces

    @property
    def doors(self) -> tuple[str, ...]:
        """Files through which the child joins the host's control groups."""
        return self._host.doors

    @property
    def temporary(self) -> str:
        """The host's folder for temporary files, or ""."""
        return self._host.temporary

    def state(self) -> None:
        """Nothing for the next supervisor: the host's state has it all."""

    def watch(self, roots: Roots, end: Callable[[str], None]) -> None:
        """The host's limits are watched already."""

    def main_ended(self) -> None:
        """The main process has been reaped: its orphans must end. The first process of the namespaces has
        adopted them; without namespaces the supervisor has."""
        tree.ask_to_end(descendants(self._orphans()))
        self._look(0.0)

    def _orphans(self) -> list[int]:
        """Those of the host are not among them while it runs; when it has ended, they end too."""
        return [] if self.namespaces is None else self.namespaces.left_behind()

    def _look(self, waited: float) -> None:
        left = self._orphans()
        if left and waited < UNKILLABLE_SECONDS:
            if waited >= LEFTOVER_SECONDS:
                tree.kill(left)
            self._timer = self._loop.after(LOOK_SECONDS, lambda: self._look(waited + LOOK_SECONDS))
            return
        self._orphans_gone = True
        if self._when_gone is not None:
            self._when_gone()

    def when_gone(self, callback: Callable[[], None]) -> bool:
        """Whether none of its orphans is left that the kernel ends. If one is, call back when it is gone."""
        self._when_gone = callback
        return self._orphans_gone

    def memory_killed(self, code: int) -> bool:
        return self._host.memory_killed(code)

    def reason(self, code: int, known: str) -> str:
        """Why it ended: `known`, or that the kernel killed it for the memory of all that the host has."""
        return "memory" if not known and self.memory_killed(code) else known

    def close(self) -> None:
        """May be called again. What the host has stays."""
        if self._timer is not None:
            self._timer.cancel()


class Guests:
    """The processes within one."""

    def __init__(self) -> None:
        self._by_pid: dict[int, Member] = {}

    def __iter__(self) -> Iterator[Member]:
        return iter(list(self._by_pid.values()))

    def __len__(self) -> int:
        return len(self._by_pid)

    def add(self, guest: Member) -> None:
        self._by_pid[guest.pid] = guest

    def remove(self, guest: Member) -> bool:
        """Whether it was one."""
        return self._by_pid.pop(guest.pid, None) is not None

    def end(self) -> None:
        """Their host has ended."""
        for guest in self:
            guest.end_with_host()


def around(
    loop: Watching,
    groups: Groups,
    folders: TemporaryFolders,
    pid: int,
    plan: LaunchPlan,
    namespaces: Namespaces | None,
    host: Member | None,
) -> Surroundings | Within:
    """What a new process runs in: those of its host, or its own. Raises LimitReached, and leaves nothing
    then."""
    if host is not None:
        groups.discard()  # the waiting child may be in groups that nobody else would remove
        return Within(loop, host.surroundings)
    limits, landlock = plan.confine.limits, plan.confine.landlock
    made = Surroundings.make(loop, limits, groups.group(pid, limits.cgroups), namespaces)
    try:
        if landlock is not None and landlock.private_tmp:
            made.make_temporary(folders, pid, plan.confine.user)
    except BaseException:
        made.close()
        raise
    return made


def restored_around(
    loop: Watching, folders: TemporaryFolders, state: ProcessState, host: Member | None
) -> Surroundings | Within:
    """What a process of another supervisor runs in."""
    if host is not None:
        return Within(loop, host.surroundings)
    found = Surroundings.restore(loop, state.plan.confine.limits, state.pid, state.namespaces)
    found.own_temporary(folders, state.pid)
    return found
