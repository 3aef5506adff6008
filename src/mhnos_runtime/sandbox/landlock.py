"""Landlock rulesets as data: accesses by path, for an ABI (landlock(7)). Pure; makes no system call."""

from __future__ import annotations

from collections.abc import Iterable

from mhnos_runtime.launch import Landlock

# linux/landlock.h
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_FILE, _MAKE_CHAR, _MAKE_REG, _MAKE_BLOCK = 1 << 5, 1 << 6, 1 << 8, 1 << 11
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_FIRST_ABI = (1 << 13) - 1
_BIND_TCP, _CONNECT_TCP = 1, 2
_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 1, 2

READ = _EXECUTE | _READ_FILE | _READ_DIR
#: Everything but device nodes, which only privileged users can make anyway.
WRITE = READ | (_FIRST_ABI & ~(_MAKE_CHAR | _MAKE_BLOCK)) | _REFER | _TRUNCATE
DEVICE = _READ_FILE | _WRITE_FILE | _IOCTL_DEV | _TRUNCATE
#: What shm_open(3) and sem_open(3) need of /dev/shm: files by name.
SHARED = _READ_FILE | _WRITE_FILE | _MAKE_REG | _REMOVE_FILE | _TRUNCATE
#: Accesses that a rule for a file may contain.
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV


def scopes(abi: int) -> bool:
    """Whether an ABI scopes signals and abstract sockets to a process's domain (Linux 6.12)."""
    return abi >= 6


def handled(abi: int) -> int:
    """All file accesses of an ABI."""
    bits = _FIRST_ABI
    for since, bit in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEV)):
        bits |= bit if abi >= since else 0
    return bits


def ruleset(
    abi: int, rules: Iterable[tuple[str, int, bool]], *, network: bool, own_folders: Iterable[str] = ()
) -> Landlock:
    """rules: (path, access, whether it is a folder). network: whether TCP is allowed. Access to the process's
    terminal and temporary files is added at its start. own_folders: writable, see `Landlock`."""
    mask = handled(abi)
    return Landlock(
        handled_fs=mask,
        handled_net=0 if network or abi < 4 else _BIND_TCP | _CONNECT_TCP,
        scoped=_SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS if scopes(abi) else 0,
        rules=tuple((path, access & mask & (-1 if folder else _OF_FILES)) for path, access, folder in rules),
        own_terminal=DEVICE & mask,
        private_tmp=WRITE & mask,
        own_folders=tuple((path, WRITE & mask) for path in own_folders),
    )


def barrier(abi: int) -> Landlock | None:
    """Landlock in addition to namespaces; None if the kernel has none.

    A domain of its own, from which no process outside can be debugged: the holder of the namespaces is inside
    them without a system call filter. It also scopes abstract sockets, which the network namespace shares.
    """
    if not abi:
        return None
    return Landlock(_MAKE_BLOCK, 0, _SCOPE_ABSTRACT_SOCKETS if scopes(abi) else 0)


def describe(abi: int) -> str:
    """Which parts of Landlock this ABI lacks."""
    lacking = [
        what
        for since, what in (
            (3, "truncation is refused by the system call filter instead"),
            (4, "TCP"),
            (5, "ioctl on devices"),
            (6, "signals and abstract sockets"),
        )
        if abi < since
    ]
    return f"ABI {abi}" + (f", without: {', '.join(lacking)}" if lacking else "")
