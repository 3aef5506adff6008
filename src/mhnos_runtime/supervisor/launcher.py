"""Starts programs from a child that was forked in advance and waits for its plan.

A fork copies page tables, and then each page that either side touches: some 2 ms. Joining a control group
takes 10 to 20 ms on a quiet machine, since the kernel waits for an RCU grace period first. Done in advance,
they delay no start. Knows the child, its socket and its groups; not what is started.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, NoReturn

from mhnos_runtime import title
from mhnos_runtime.channel import ANCILLARY_BYTES, MAX_MESSAGE_BYTES, descriptors_of, encode
from mhnos_runtime.errors import InvalidRequest, LimitReached
from mhnos_runtime.launch import LaunchPlan, StartDescriptors
from mhnos_runtime.supervisor import child
from mhnos_runtime.supervisor.cgroup import Group, Hierarchies
from mhnos_runtime.supervisor.loop import Loop
from mhnos_runtime.supervisor.surroundings import Surroundings, no_limits
from mhnos_runtime.supervisor.within import Within

#: When the next child is forked: the program that was just started has written its first bytes by then.
REFILL_SECONDS = 0.003
#: When the waiting child joins control groups, after its fork. No group can be made or removed meanwhile, and
#: the end of a quick program would have to wait.
JOIN_SECONDS = 0.1


class _Told(NamedTuple):
    """What the waiting child is told: to join control groups through the files `doors`, or, with a plan, to
    become what that says, see `child.become`."""

    doors: Sequence[str]
    plan: dict[str, Any] | None = None
    sent: int = 0
    temporary: str = ""

    def encode(self) -> bytes:
        """Raises InvalidRequest for more than the child reads: it would take the rest for a plan's end."""
        message = encode(self._asdict())
        if len(message) > MAX_MESSAGE_BYTES:
            raise InvalidRequest("command, arguments and environment are too long", code="too-large")
        return message


class Launcher:
    """Keeps one child ready. os_pid: that child's, 0 if there is none.

    next_pid: returns the pid of the next process. Its control groups are made in advance, in the same parents
    as those of the last one.
    """

    def __init__(self, loop: Loop, next_pid: Callable[[], int]) -> None:
        self._loop = loop
        self._next_pid = next_pid
        self._hierarchies: Hierarchies = ()
        self._group: Group | None = None
        self._sock: socket.socket | None = None
        self._due = False
        self.os_pid = 0
        self.least_kib = sys.maxsize

    def group(self, pid: int, hierarchies: Hierarchies) -> Group | None:
        """The control groups of the next process, which then owns them; None if it needs none.

        Those that the waiting child joins, if they fit. Raises LimitReached.
        """
        self._hierarchies = hierarchies
        if self._group is not None:
            if (self._group.hierarchies, self._group.pid) == (hierarchies, pid):
                return self._group
            self.discard()
        try:
            return Group.make(hierarchies, pid) if hierarchies else None
        except OSError as error:
            raise no_limits(error) from error

    def start(
        self, plan: LaunchPlan, descriptors: StartDescriptors, surroundings: Surroundings | Within
    ) -> child.Child:
        """Have the waiting child execute the plan. The descriptors stay the caller's.

        surroundings: with the namespaces that the program is to be in, which are ready.

        Raises LimitReached (code no-pty, start-failed) when the machine runs out of resources.
        """
        with child.Wiring(plan.pty, plan.confine.user, surroundings, plan.control) as wiring:
            sent = wiring.for_child(descriptors).sent()
            told = _Told(surroundings.doors, _for_child(plan), len(sent), surroundings.temporary)
            os_pid = self._tell(told.encode(), sent)
            self._refill_later()
            if surroundings.namespaces is not None:
                os_pid = wiring.sibling(os_pid)
            return wiring.keep_parent_side(os_pid)

    def prepare(self) -> None:
        """Fork a waiting child, unless there is one. Raises LimitReached."""
        if self._sock is not None:
            return
        self.least_kib = _own_memory_kib()
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise child.none_left(f"no descriptors for another process: {error.strerror}") from error
        with theirs:
            try:
                self.os_pid = os.fork()
            except OSError as error:
                ours.close()
                raise LimitReached(
                    f"the machine can start no more programs: {error.strerror}",
                    code="start-failed",
                    hint="end some processes, or raise the limit of tasks (ulimit -u, TasksMax)",
                ) from error
            if self.os_pid == 0:
                _wait(theirs)
        self._sock = ours

    def lost(self) -> None:
        """The waiting child has died: somebody killed it."""
        group = self._group
        self._forget()
        if group is not None:
            group.close()
        self._refill_later()

    def discard(self) -> None:
        """End the waiting child if it is in control groups, and remove these."""
        group, os_pid = self._group, self.os_pid
        if group is None:
            return
        self._forget()
        os.kill(os_pid, signal.SIGKILL)
        os.waitpid(os_pid, 0)
        group.close()
        self._refill_later()

    def _tell(self, message: bytes, descriptors: list[int]) -> int:
        """Send the plan to the waiting child, or to a new one if that was killed; return its OS pid.

        Raises LimitReached, also if too many descriptors are in flight (unix(7), ETOOMANYREFS).
        """
        while True:
            self.prepare()
            sock, os_pid = self._sock, self.os_pid
            if sock is None:
                raise RuntimeError("no child after prepare")
            try:
                socket.send_fds(sock, [message], descriptors)
            except (BrokenPipeError, ConnectionResetError):
                self._forget()
                continue
            except OSError as error:  # the child waits on
                raise child.none_left(f"no descriptors can be handed over: {error.strerror}") from error
            self._forget()
            return os_pid

    def _forget(self) -> None:
        if self._sock is not None:
            self._sock.close()
        self._sock = self._group = None
        self.os_pid = 0

    def _refill_later(self) -> None:
        if not self._due:
            self._due = True
            self._loop.after(REFILL_SECONDS, self._refill)

    def _refill(self) -> None:
        self._due = False
        try:
            self.prepare()
        except LimitReached:
            # The next start reports the error.
            return
        os_pid = self.os_pid
        self._loop.after(JOIN_SECONDS, lambda: self._have_joined(os_pid))

    def _have_joined(self, os_pid: int) -> None:
        """Have the child join groups in advance, if it still waits."""
        if self._sock is None or os_pid != self.os_pid or not self._hierarchies:
            return
        try:
            group = Group.make(self._hierarchies, self._next_pid())
        except OSError:
            return  # the next start tries again, and reports the error
        try:
            self._sock.send(_Told(group.doors).encode())
        except OSError:
            group.close()
        else:
            self._group = group


def _wait(sock: socket.socket) -> NoReturn:
    """The child: close everything of the parent's, join groups when told to, and execute the plan."""
    try:
        child.detach()
        title.take(title.WAITING)
        own = sock.fileno()
        os.closerange(3, own)
        os.closerange(own + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        joined: set[str] = set()
        while True:
            message, ancillary, _flags, _address = sock.recvmsg(
                MAX_MESSAGE_BYTES, ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC
            )
            if not message:
                break
            told = _Told(**json.loads(message))
            if told.plan is None:
                joined = _joined(told.doors)
                continue
            plan, descriptors = LaunchPlan.from_dict(told.plan), descriptors_of(ancillary)
            doors = [door for door in told.doors if door not in joined]
            child.become(plan, doors, descriptors, told.sent, told.temporary)
    finally:
        os._exit(0)


def _joined(doors: Iterable[str]) -> set[str]:
    """Join groups through these files; return those that worked. The others are tried again at the start."""
    joined: set[str] = set()
    for door in doors:
        with contextlib.suppress(OSError):
            child.join(door)
            joined.add(door)
    return joined


def _for_child(plan: LaunchPlan) -> dict[str, Any]:
    """The plan without the half that only the parent needs, which would delay the start by its parsing."""
    told = plan.to_dict()
    return {**told, "facts": {}, "confine": {**told["confine"], "holder": None}}


def _own_memory_kib() -> int:
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize() // 1024
    except OSError:
        # No descriptor is left: the start reports that, or else the figure is unknown.
        return sys.maxsize
