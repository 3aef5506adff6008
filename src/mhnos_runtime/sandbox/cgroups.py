"""Where this host lets the runtime make control groups: cgroup v1, or a delegated part of v2.

Reads /proc and makes the runtime's own group; knows no process.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

from mhnos_runtime.launch import UNIFIED, UNIFIED_CPU

#: The cgroup v1 hierarchies in use; each is independent.
CONTROLLERS = ("memory", "pids", "cpu")
PREFIX = "mhnos-"
_NEEDED = frozenset({"memory", "pids"})
#: The suffixes of systemd units' groups, and the marks of a group that systemd delegates: the first for every
#: user since version 251, the second for root only before.
_UNITS = (".service", ".scope", ".slice")
_DELEGATED = ("user.delegate", "trusted.delegate")


class GroupParent(NamedTuple):
    """A directory in which groups may be made. hierarchy: as in `Limits.cgroups`. own: the runtime is a
    member of it and must move into a child first."""

    hierarchy: str
    directory: Path
    own: bool = False


def find(
    membership: str | None = None, mounts: str | None = None, *, pid: int | None = None
) -> tuple[list[GroupParent], str]:
    """The directories, and what to say if there are none. membership, mounts: /proc/self/cgroup,
    mountinfo."""
    membership = Path("/proc/self/cgroup").read_text() if membership is None else membership
    mounts = Path("/proc/self/mountinfo").read_text() if mounts is None else mounts
    unified = _unified(membership, mounts, pid or os.getpid())
    if unified is not None:
        return [unified], ""
    parents = [parent for name in CONTROLLERS if (parent := _v1(name, membership, mounts)) is not None]
    return parents, "" if parents else "this user may not make control groups for processes"


def _mount(mounts: str, kind: str, option: str) -> tuple[str, str] | None:
    """(root, mount point) of a hierarchy (proc(5), mountinfo)."""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields, filesystem = before.split(), after.split()
        if len(fields) <= 4 or len(filesystem) <= 2 or filesystem[0] != kind:
            continue
        if not option or option in filesystem[2].split(","):
            return fields[3], fields[4]
    return None


def _directory(membership: str, controller: str, mount: tuple[str, str]) -> Path | None:
    for line in membership.splitlines():
        _number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if controller in names.split(",") if controller else not names:
            root, point = mount
            inside = path.removeprefix(root) if root != "/" else path
            return Path(point, inside.strip("/"))
    return None


def _v1(controller: str, membership: str, mounts: str) -> GroupParent | None:
    mount = _mount(mounts, "cgroup", controller)
    directory = _directory(membership, controller, mount) if mount else None
    if directory is not None and directory.is_dir() and os.access(directory, os.W_OK | os.X_OK):
        return GroupParent(controller, directory)
    return None


def _unified(membership: str, mounts: str, pid: int) -> GroupParent | None:
    """The runtime's own group if it is alone in it, else the nearest ancestor whose children have
    controllers.

    That may be the runtime's own group if it is the root: the rule that a group has either processes or
    children with controllers does not apply there (cgroups(7)).
    """
    mount = _mount(mounts, "cgroup2", "")
    own = _directory(membership, "", mount) if mount else None
    if own is None or mount is None:
        return None
    alone = _words(own / "cgroup.procs") <= {str(pid)}
    if alone and _lent(own) and _writable(own) and (hierarchy := _hierarchy(own / "cgroup.controllers")):
        return GroupParent(hierarchy, own, own=True)
    for directory in (own, *own.parents):
        if not directory.is_relative_to(mount[1]) or not _writable(directory):
            return None
        if hierarchy := _hierarchy(directory / "cgroup.subtree_control"):
            return GroupParent(hierarchy, directory)
    return None


def _lent(group: Path) -> bool:
    """Whether the manager of this group delegates it to its processes. systemd stops a service that it does
    not delegate as a whole when one process in it runs out of memory (OOMPolicy=)."""
    if group.suffix not in _UNITS:
        return True
    for name in _DELEGATED:
        with contextlib.suppress(OSError):
            return os.getxattr(group, name) == b"1"
    return False


def _hierarchy(controllers: Path) -> str:
    """The hierarchy whose limits the controllers listed in this file enforce, or ""."""
    words = _words(controllers)
    if not words >= _NEEDED:
        return ""
    return UNIFIED_CPU if "cpu" in words else UNIFIED


def _writable(directory: Path) -> bool:
    return all(os.access(path, os.W_OK) for path in (directory, directory / "cgroup.procs"))


def _words(path: Path) -> set[str]:
    with contextlib.suppress(OSError):
        return set(path.read_text().split())
    return set()


def prepare(parents: list[GroupParent]) -> tuple[tuple[str, str], ...]:
    """Make the runtime's group in each parent, and remove groups of earlier runtimes.

    Returns (hierarchy, path) of each group that could be made, as in `Limits.cgroups`.
    """
    rows: list[tuple[str, str]] = []
    for parent in parents:
        _sweep(parent.directory)
        with contextlib.suppress(OSError):
            group = _make(parent)
            hierarchy = parent.hierarchy
            if hierarchy in (UNIFIED, UNIFIED_CPU):
                hierarchy = _hierarchy(group / "cgroup.subtree_control")
            if hierarchy:
                rows.append((hierarchy, str(group)))
            else:
                group.rmdir()
    return tuple(rows)


def _make(parent: GroupParent) -> Path:
    if parent.own:
        own = parent.directory / "runtime"
        own.mkdir(exist_ok=True)
        (own / "cgroup.procs").write_text(str(os.getpid()))
        _enable(parent.directory)
    # Named by the OS pid, which the supervisor keeps: it shows later whether the group is in use.
    group = parent.directory / f"{PREFIX}{os.getpid()}"
    group.mkdir(exist_ok=True)
    if parent.hierarchy in (UNIFIED, UNIFIED_CPU):
        _enable(group)
    return group


def _enable(directory: Path) -> None:
    """Give children the controllers, one at a time, since cpu is often not delegated."""
    for controller in CONTROLLERS:
        with contextlib.suppress(OSError):
            (directory / "cgroup.subtree_control").write_text(f"+{controller}")


def _sweep(directory: Path) -> None:
    """Remove groups of runtimes that were killed."""
    for group in directory.glob(f"{PREFIX}*"):
        if os.path.exists(f"/proc/{group.name.removeprefix(PREFIX)}"):
            continue
        for folder, _folders, _files in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
