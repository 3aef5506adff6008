"""Whether a plan may be started: by the policy, and by the descriptors that came with it.

The policy itself is data and a pure function (`sandbox.Allowed`). Descriptors and links are checked here,
since only the system knows them. The server is not trusted with either.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from collections.abc import Iterable

from mhnos_runtime.launch import LaunchPlan, StartDescriptors
from mhnos_runtime.sandbox.allowed import Allowed, forbidden
from mhnos_runtime.supervisor.child import none_left


def permit(
    allowed: Allowed,
    plan: LaunchPlan,
    descriptors: StartDescriptors,
    listeners: Iterable[int],
    host: LaunchPlan | None = None,
) -> LaunchPlan:
    """The plan as it will be executed. listeners: the runtime's own. host: what is kept of the plan of the
    process that it is within. Raises LimitReached if descriptors are missing, Refused (forbidden-plan)."""
    allowed.check(plan)
    folder, handed = descriptors
    if folder < 0 or len(handed) != plan.handed:
        # The kernel dropped those for which this process had no room (unix(7)).
        raise none_left("no descriptor is left for another process")
    if not _is_folder_below(folder, allowed.sandbox.workspace):
        raise forbidden("its working directory is not in the workspace")
    own = {_identity(fd) for fd in listeners}
    if any(_identity(fd) in own for fd in handed):
        raise forbidden("it gets a socket on which the runtime itself listens")
    sockets = [fd for fd in handed if _listens_on_loopback(fd)]
    if not all(fd in sockets or _is_sealed_memory(fd) for fd in handed):
        raise forbidden("it may get only TCP sockets that listen on loopback, and sealed memory files")
    if host is not None:
        return allowed.within(plan, host, handed_sockets=bool(sockets))
    confined = allowed.confined(plan, handed_sockets=bool(sockets))
    if not all(map(_is_no_link, _below(allowed.engines_dir, plan.choice.engines))):
        raise forbidden("the folder of an engine is a link to elsewhere")
    return confined


def _is_folder_below(fd: int, root: str) -> bool:
    """A folder that was removed meanwhile counts: it is empty for good."""
    path = os.readlink(f"/proc/self/fd/{fd}")
    below = path == root or path.startswith(root.rstrip("/") + "/")
    return below and stat.S_ISDIR(os.fstat(fd).st_mode)


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _listens_on_loopback(fd: int) -> bool:
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return False
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return False  # the path of one (O_PATH)
    try:
        if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
            return False
        if sock.proto != socket.IPPROTO_TCP or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return False
        address: str = sock.getsockname()[0]
        return address == "::1" if sock.family == socket.AF_INET6 else address.startswith("127.")
    finally:
        sock.detach()


def _is_sealed_memory(fd: int) -> bool:
    """memfd_create(2): a file that is sealed against writing never had a name."""
    try:
        return bool(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE)
    except OSError:
        return False


def _below(folder: str, paths: Iterable[str]) -> set[str]:
    """Each path, and its parent below the folder."""
    return {each for path in paths for each in (path, os.path.dirname(path)) if each != folder}


def _is_no_link(path: str) -> bool:
    return not os.path.islink(path)
