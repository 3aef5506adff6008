"""A control group for one process tree: made, asked what happened, removed. Knows cgroup v1 and v2 files.

Knows no process; who is in the group is its own business (cgroups(7)).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from mhnos_runtime.launch import Limits

UNIFIED = "unified"
#: Time over which a share of CPU is measured, µs: the kernel's own default.
_PERIOD_US = 100_000


class Group:
    """The control groups of one process, one a hierarchy. oom_fd: readable when memory ran out, or -1."""

    def __init__(self, limits: Limits, name: str) -> None:
        """Those that were made with this name."""
        self._paths = {controller: Path(directory, name) for controller, directory in limits.cgroups}
        self.oom_fd = -1

    @classmethod
    def make(cls, limits: Limits, name: str) -> Group:
        """Make them. Raises OSError when the hierarchy refuses."""
        group = cls(limits, name)
        try:
            for controller, path in group._paths.items():
                path.mkdir()
                for file, value in _settings(controller, limits):
                    (path / file).write_text(value)
        except OSError:
            group.close()
            raise
        return group

    @property
    def doors(self) -> tuple[str, ...]:
        """Files through which a process joins."""
        return tuple(str(path / "cgroup.procs") for path in self._paths.values())

    def memory_kills(self) -> int:
        """How many processes the kernel killed because the group was out of memory."""
        for controller, file in (("memory", "memory.oom_control"), (UNIFIED, "memory.events")):
            if controller in self._paths:
                return _field(self._paths[controller] / file, "oom_kill")
        return 0

    def peak_bytes(self) -> int | None:
        """Most memory that was charged to the group at one time; None where the kernel does not tell."""
        for controller, file in (("memory", "memory.max_usage_in_bytes"), (UNIFIED, "memory.peak")):
            if controller in self._paths:
                with contextlib.suppress(OSError, ValueError):
                    return int((self._paths[controller] / file).read_text())
        return None

    def close(self) -> None:
        """Remove the groups. A second call goes on where processes were in the way of the first."""
        if self.oom_fd >= 0:
            os.close(self.oom_fd)
            self.oom_fd = -1
        for path in self._paths.values():
            with contextlib.suppress(OSError):
                path.rmdir()

    def watch_memory(self) -> bool:
        """Whether there is oom_fd now. cgroup v1 kills one process of the group and tells us; v2 kills the
        group (memory.oom.group)."""
        path = self._paths.get("memory")
        if path is None:
            return False
        events = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            with (path / "memory.oom_control").open() as control:
                (path / "cgroup.event_control").write_text(f"{events} {control.fileno()}")
        except OSError:
            os.close(events)  # the exit record still tells, by the count of kills
            return False
        self.oom_fd = events
        return True


def remove(directory: str) -> None:
    """Remove a group and those in it; what still has processes stays."""
    for path in (*Path(directory).glob("p*"), Path(directory)):
        with contextlib.suppress(OSError):
            path.rmdir()


def _settings(controller: str, limits: Limits) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    if controller in ("memory", UNIFIED) and limits.memory_bytes:
        v1 = controller == "memory"
        rows.append(("memory.limit_in_bytes" if v1 else "memory.max", str(limits.memory_bytes)))
        if not v1:
            rows += [("memory.oom.group", "1")]
    if controller in ("pids", UNIFIED) and limits.tasks:
        rows.append(("pids.max", str(limits.tasks)))
    quota_us = limits.cpu_percent * _PERIOD_US // 100
    if controller == "cpu" and quota_us:
        rows += [("cpu.cfs_period_us", str(_PERIOD_US)), ("cpu.cfs_quota_us", str(quota_us))]
    if controller == UNIFIED and quota_us:
        rows.append(("cpu.max", f"{quota_us} {_PERIOD_US}"))
    return rows


def _field(path: Path, name: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return 0
