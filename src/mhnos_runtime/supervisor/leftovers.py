"""Orphans of main processes: whose they are, how long they have to end, and when they are gone.

Knows OS pids, owners and signals; not what an owner is, and not the loop.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from mhnos_runtime import proc
from mhnos_runtime.supervisor import tree

#: How long an orphan may take to end by itself before it is killed.
GRACE_SECONDS = 1.0
#: A tree that the kernel does not end within this time (an uninterruptible read) is given up.
UNKILLABLE_SECONDS = 10.0
#: How much later than an orphan its main process may be reaped: the last thread of a process gives its
#: children away a little before.
SETTLE_SECONDS = 0.02
#: Rounds of looking for what an orphan has forked while it is being killed.
_ROUNDS = 20

Owner = TypeVar("Owner", bound=Hashable)


@dataclass(slots=True)
class _Leftover(Generic[Owner]):
    """seen: when it became a child of this process. since: when the first of its line did, so that one that
    forks and exits does not get new time."""

    seen: float
    since: float
    owners: set[Owner] = field(default_factory=set)


class Leftovers(Generic[Owner]):
    """Ends all unknown children of this process, each on behalf of the owners that may have left it.

    A main process is a subreaper, so its descendants become this process's children only when it ends, and
    before it can be reaped. So a new child belongs to the main processes that are reaped in the same turn or
    soon after, or to the owner of an orphan that is reaped then. If several are possible, it counts for all
    of them.
    """

    def __init__(self, known: Callable[[], Collection[int]]) -> None:
        """known: OS pids of children that are no orphans."""
        self._known = known
        self._present: dict[int, _Leftover[Owner]] = {}
        self._reaped: set[Owner] = set()
        self._since = math.inf
        self._waiting: set[Owner] = set()

    def reaped(self, os_pid: int, owner: Owner | None) -> None:
        """A child was reaped: the main process of `owner`, or perhaps an orphan."""
        if owner is not None:
            self._reaped.add(owner)
            self._waiting.add(owner)
        gone = self._present.pop(os_pid, None)
        if gone is not None:
            self._reaped |= gone.owners
            self._since = min(self._since, gone.since)

    def end(self) -> set[Owner]:
        """To be called after each turn of reaping, and again while orphans are left. Returns each owner once,
        when none of its orphans is left."""
        now = time.monotonic()
        new = self._take_present(now)
        late = [os_pid for os_pid, left in self._present.items() if now - left.since >= GRACE_SECONDS]
        if late:
            self._kill(late)
        tree.ask_to_end(proc.descendants(new))
        self._reaped, self._since = set(), math.inf
        return self._take_gone(now)

    @property
    def some(self) -> bool:
        """Whether orphans are left that have not been given up."""
        now = time.monotonic()
        return any(now - leftover.since < UNKILLABLE_SECONDS for leftover in self._present.values())

    def _take_present(self, now: float) -> list[int]:
        """Update the children; return the new ones."""
        current = self._unknown()
        new = [os_pid for os_pid in current if os_pid not in self._present]
        self._present = {os_pid: self._present.get(os_pid) or _Leftover(now, now) for os_pid in current}
        for leftover in self._present.values():
            if now - leftover.seen <= SETTLE_SECONDS:
                leftover.owners |= self._reaped
                leftover.since = min(leftover.since, self._since)
        return new

    def _unknown(self) -> list[int]:
        known = self._known()
        return [os_pid for os_pid in proc.children(os.getpid()) if os_pid not in known]

    def _kill(self, late: Iterable[int]) -> None:
        """Kill them, and what they fork meanwhile."""
        stopped = set(self._present)
        tree.kill(late)
        for _ in range(_ROUNDS):
            become = [os_pid for os_pid in self._unknown() if os_pid not in stopped]
            if not become:
                return
            tree.kill(become)
            stopped.update(become)

    def _take_gone(self, now: float) -> set[Owner]:
        left = {
            owner
            for leftover in self._present.values()
            if now - leftover.since < UNKILLABLE_SECONDS
            for owner in leftover.owners
        }
        gone = self._waiting - left
        self._waiting -= gone
        return gone
