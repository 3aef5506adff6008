"""A process's namespaces as the kernel's files, opened in an order in which to join them. Knows no holder."""

from __future__ import annotations

import fcntl
import os

# ioctl_ns(2)
_NS_GET_USERNS = 0xB701
_NS_GET_PARENT = 0xB702
_KINDS = ("mnt", "pid", "ipc", "uts", "net", "cgroup")


def joinable(os_pid: int) -> list[int]:
    """Namespaces of a process that are not ours, in an order in which a process without privileges may join
    them; the caller closes them.

    Each user namespace comes before those that it owns: joining it gives the right to join them. Raises
    OSError when no descriptors are left, or the namespaces are gone.
    """
    with _Opened() as opened:
        others = [opened.add(_open(os_pid, kind)) for kind in _KINDS if _differs(os_pid, kind)]
        order: list[int] = []
        for user in _user_namespaces(os_pid, opened):
            order += [user, *(fd for fd in others if _owner(fd) == _inode(user))]
        return opened.keep(order)


def joinable_network(os_pid: int) -> list[int]:
    """The user namespace that owns a process's network, and the network; the caller closes them. Raises
    OSError."""
    with _Opened() as opened:
        network = opened.add(_open(os_pid, "net"))
        return opened.keep([opened.add(fcntl.ioctl(network, _NS_GET_USERNS)), network])


def _open(os_pid: int, kind: str) -> int:
    return os.open(f"/proc/{os_pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


def _differs(os_pid: int, kind: str) -> bool:
    theirs, ours = os.stat(f"/proc/{os_pid}/ns/{kind}"), os.stat(f"/proc/self/ns/{kind}")
    return theirs.st_ino != ours.st_ino


def _inode(fd: int) -> int:
    return os.fstat(fd).st_ino


def _owner(fd: int) -> int:
    """The inode of the user namespace that a namespace belongs to."""
    user = fcntl.ioctl(fd, _NS_GET_USERNS)
    try:
        return _inode(user)
    finally:
        os.close(user)


def _user_namespaces(os_pid: int, opened: _Opened) -> list[int]:
    """The user namespaces between the process's and ours, outermost first."""
    own = os.stat("/proc/self/ns/user").st_ino
    chain = [opened.add(_open(os_pid, "user"))]
    while True:
        parent = opened.add(fcntl.ioctl(chain[0], _NS_GET_PARENT))
        if _inode(parent) == own:
            return chain
        chain.insert(0, parent)


class _Opened:
    """Descriptors that are closed together, except those that are kept."""

    def __init__(self) -> None:
        self._descriptors: set[int] = set()

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._descriptors:
            os.close(fd)

    def add(self, fd: int) -> int:
        self._descriptors.add(fd)
        return fd

    def keep(self, descriptors: list[int]) -> list[int]:
        self._descriptors -= set(descriptors)
        return descriptors
