"""A control group for one process tree: made, queried, removed. Knows cgroup v1 and v2 files.

Knows no process; processes join by themselves (cgroups(7)).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TypeAlias

from mhnos_runtime.launch import UNIFIED, UNIFIED_CPU, Limits

#: As in `Limits.cgroups`.
Hierarchies: TypeAlias = tuple[tuple[str, str], ...]

#: The period of a CPU limit, µs: the kernel's default.
_PERIOD_US = 100_000


class Group:
    """The control groups of one process, one a hierarchy. oom_fd: readable when memory ran out, or -1."""

    def __init__(self, hierarchies: Hierarchies, pid: int) -> None:
        """The groups that were made for this pid of the runtime."""
        self.hierarchies, self.pid = hierarchies, pid
        self._paths = {hierarchy: Path(directory, f"p{pid}") for hierarchy, directory in hierarchies}
        self._v2 = self._paths.get(UNIFIED_CPU) or self._paths.get(UNIFIED)
        self.oom_fd = -1

    @classmethod
    def make(cls, hierarchies: Hierarchies, pid: int) -> Group:
        """Make them, without limits. Raises OSError when a hierarchy refuses."""
        group = cls(hierarchies, pid)
        made: list[Path] = []
        try:
            for path in group._paths.values():
                path.mkdir()
                made.append(path)
        except OSError:
            for path in made:
                _remove(path)
            raise
        return group

    def limit(self, limits: Limits) -> None:
        """Raises OSError when a hierarchy refuses."""
        for hierarchy, path in self._paths.items():
            for file, value in _settings(hierarchy, limits):
                (path / file).write_text(value)
            _no_swap(path, limits)

    @property
    def doors(self) -> tuple[str, ...]:
        """Files through which a process joins."""
        return tuple(str(path / "cgroup.procs") for path in self._paths.values())

    def memory_kills(self) -> int:
        """How many processes the kernel killed because the group was out of memory."""
        if self._v2 is not None:
            return _field(self._v2 / "memory.events", "oom_kill")
        if "memory" in self._paths:
            return _field(self._paths["memory"] / "memory.oom_control", "oom_kill")
        return 0

    def peak_bytes(self) -> int | None:
        """The most memory that was charged to a group that ran out of it; None if the kernel does not say.
        cgroup v2 does not before Linux 5.19, but then the limit was reached."""
        files: list[Path] = []
        if self._v2 is not None:
            files = [self._v2 / "memory.peak", self._v2 / "memory.max"]
        elif "memory" in self._paths:
            files = [self._paths["memory"] / "memory.max_usage_in_bytes"]
        for file in files:
            with contextlib.suppress(OSError, ValueError):
                return int(file.read_text())
        return None

    def close(self) -> None:
        """Remove the groups. A second call removes those that still had processes at the first."""
        if self.oom_fd >= 0:
            os.close(self.oom_fd)
            self.oom_fd = -1
        for path in self._paths.values():
            _remove(path)

    def watch_memory(self) -> bool:
        """Whether oom_fd is open now. cgroup v1 kills one process of the group and reports it there; v2 kills
        the whole group (memory.oom.group)."""
        path = self._paths.get("memory")
        if path is None:
            return False
        try:
            events = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except OSError:
            return False  # no descriptor is left: the count of kills still tells the exit record
        try:
            with (path / "memory.oom_control").open() as control:
                (path / "cgroup.event_control").write_text(f"{events} {control.fileno()}")
        except OSError:
            os.close(events)
            return False
        self.oom_fd = events
        return True


def remove(directory: str) -> None:
    """Remove a group and its children; a group with processes stays."""
    _remove(Path(directory))


def _remove(group: Path) -> None:
    """At level none a process of the runtime's user can have made groups inside its own."""
    try:
        group.rmdir()
    except OSError:
        for folder, _folders, _files in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def _settings(hierarchy: str, limits: Limits) -> list[tuple[str, str]]:
    v2 = hierarchy in (UNIFIED, UNIFIED_CPU)
    rows: list[tuple[str, str]] = []
    if v2 and limits.memory_bytes:
        rows += [("memory.max", str(limits.memory_bytes)), ("memory.oom.group", "1")]
    if hierarchy == "memory" and limits.memory_bytes:
        rows.append(("memory.limit_in_bytes", str(limits.memory_bytes)))
    if (v2 or hierarchy == "pids") and limits.tasks:
        rows.append(("pids.max", str(limits.tasks)))
    quota_us = limits.cpu_percent * _PERIOD_US // 100
    if hierarchy == "cpu" and quota_us:
        rows += [("cpu.cfs_period_us", str(_PERIOD_US)), ("cpu.cfs_quota_us", str(quota_us))]
    if hierarchy == UNIFIED_CPU and quota_us:
        rows.append(("cpu.max", f"{quota_us} {_PERIOD_US}"))
    return rows


def _no_swap(group: Path, limits: Limits) -> None:
    """Swapped memory does not count, so a process would fill the machine's swap before it reached its limit.
    The files exist where the kernel accounts for swap."""
    values = {"memory.swap.max": "0", "memory.memsw.limit_in_bytes": str(limits.memory_bytes)}
    for file, value in values.items():
        if limits.memory_bytes and (group / file).exists():
            (group / file).write_text(value)


def _field(path: Path, name: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return 0
