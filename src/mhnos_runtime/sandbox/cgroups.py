"""Where control groups for processes can be made on this host: cgroup v1, or a delegated part of v2.

Reads /proc and makes the runtime's own group; knows no process.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

from mhnos_runtime.launch import UNIFIED, UNIFIED_CPU

#: cgroup v1 hierarchies that are used, each for itself.
CONTROLLERS = ("memory", "pids", "cpu")
PREFIX = "mhnos-"
_NEEDED = frozenset({"memory", "pids"})
#: Kinds of systemd units, by the ends of their groups' names, and how systemd marks a group that it
#: delegates: for everybody since version 251, before that for root only.
_UNITS = (".service", ".scope", ".slice")
_DELEGATED = ("user.delegate", "trusted.delegate")


class GroupParent(NamedTuple):
    """A directory in which groups may be made. hierarchy: as in `Limits.cgroups`. own: the runtime sits in it
    and has to move below first."""

    hierarchy: str
    directory: Path
    own: bool = False


def find(
    membership: str | None = None, mounts: str | None = None, *, pid: int | None = None
) -> tuple[list[GroupParent], str]:
    """Places, and what to say where there are none. membership, mounts: /proc/self/cgroup and mountinfo."""
    membership = Path("/proc/self/cgroup").read_text() if membership is None else membership
    mounts = Path("/proc/self/mountinfo").read_text() if mounts is None else mounts
    unified = _unified(membership, mounts, pid or os.getpid())
    if unified is not None:
        return [unified], ""
    parents = [parent for name in CONTROLLERS if (parent := _v1(name, membership, mounts)) is not None]
    return parents, "" if parents else "no control group of this user can hold processes"


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
    """The runtime's own group where it is alone in it, else the nearest whose children have controllers.

    That may be its own, if that is the root, to which the rule does not apply that a group has either
    processes or children with controllers (cgroups(7)).
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
    """Whether whoever manages this group leaves what is below it to its processes. A service that systemd
    does not delegate is stopped as a whole when one process in it runs out of memory (OOMPolicy=)."""
    if group.suffix not in _UNITS:
        return True
    for name in _DELEGATED:
        with contextlib.suppress(OSError):
            return os.getxattr(group, name) == b"1"
    return False


def _hierarchy(controllers: Path) -> str:
    """What groups with the controllers that this file lists can hold, or ""."""
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
    """Make the runtime's group in each parent, and remove what earlier ones left there.

    Returns (hierarchy, path) of what came of it, as `Limits.cgroups` has them: what was found can be refused.
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
    # By the OS pid, which the supervisor keeps: that says later whether it is still in use.
    group = parent.directory / f"{PREFIX}{os.getpid()}"
    group.mkdir(exist_ok=True)
    if parent.hierarchy in (UNIFIED, UNIFIED_CPU):
        _enable(group)
    return group


def _enable(directory: Path) -> None:
    """Give children the controllers; each for itself, since cpu is often not delegated."""
    for controller in CONTROLLERS:
        with contextlib.suppress(OSError):
            (directory / "cgroup.subtree_control").write_text(f"+{controller}")


def _sweep(directory: Path) -> None:
    """A runtime that was killed could not remove its groups."""
    for group in directory.glob(f"{PREFIX}*"):
        if os.path.exists(f"/proc/{group.name.removeprefix(PREFIX)}"):
            continue
        for folder, _folders, _files in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
