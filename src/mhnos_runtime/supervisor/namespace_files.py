"""The namespaces of a process as descriptors that can be joined: /proc/PID/ns and ioctl_ns(2).

Knows the kernel's files; not who made the namespaces, nor what joins them.
"""

from __future__ import annotations

import fcntl
import os

# ioctl_ns(2)
_NS_GET_USERNS = 0xB701
_NS_GET_PARENT = 0xB702
_KINDS = ("mnt", "pid", "ipc", "uts", "net", "cgroup")


def opened(os_pid: int) -> list[int]:
    """Those that differ from this process's, in an order in which one without privileges may join them; the
    caller closes them.

    Each user namespace is followed by those that it owns: joining it gives the right to join them. Raises
    OSError when there are no descriptors left, or no such process.
    """
    with _Opened() as found:
        others = [found.add(_open(os_pid, kind)) for kind in _KINDS if _differs(os_pid, kind)]
        users = _user_namespaces(os_pid, found)
        order: list[int] = []
        for user in users:
            order += [user, *(fd for fd in others if _owner(fd) == _inode(user))]
        return found.keep(order)


def opened_network(os_pid: int) -> list[int]:
    """The user namespace that owns the network, and the network; the caller closes them. Raises as
    `opened`."""
    with _Opened() as found:
        network = found.add(_open(os_pid, "net"))
        return found.keep([found.add(fcntl.ioctl(network, _NS_GET_USERNS)), network])


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


def _user_namespaces(os_pid: int, found: _Opened) -> list[int]:
    """Those between the process's and ours, outermost first."""
    own = os.stat("/proc/self/ns/user").st_ino
    chain = [found.add(_open(os_pid, "user"))]
    while True:
        parent = found.add(fcntl.ioctl(chain[0], _NS_GET_PARENT))
        if _inode(parent) == own:
            return chain
        chain.insert(0, parent)


class _Opened:
    """Descriptors that are closed together, but for those that are kept."""

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
