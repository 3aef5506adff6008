"""Starts programs from a child that was forked in advance and waits for its plan.

A fork copies page tables, and each page again that either side touches next: some 2 ms, most of a start. Done
beforehand it costs nobody's time. Knows the child and its socket; not what is started.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
from typing import Any, NoReturn

from mhnos_runtime.channel import ANCILLARY_BYTES, MAX_MESSAGE_BYTES, descriptors_of
from mhnos_runtime.errors import LimitReached
from mhnos_runtime.launch import LaunchPlan
from mhnos_runtime.supervisor import child
from mhnos_runtime.supervisor.loop import Loop
from mhnos_runtime.supervisor.surroundings import Surroundings

#: When the next child is forked: the program that was just started has written its first bytes by then.
REFILL_SECONDS = 0.003


class Launcher:
    """Keeps one child ready. os_pid is that child's, 0 while there is none."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._sock: socket.socket | None = None
        self._due = False
        self.os_pid = 0
        self.least_kib = sys.maxsize

    def start(self, plan: LaunchPlan, descriptors: list[int], surroundings: Surroundings) -> child.Child:
        """Have the waiting child execute the plan. descriptors: the folder, and what the plan hands to the
        program; they stay the caller's.

        surroundings: with the namespaces of the plan's holder, which are ready.

        Raises LimitReached (code no-pty, start-failed) when the machine has nothing left for it.
        """
        folder, *handed = descriptors
        with child.Wiring(plan.pty, plan.confine.user, surroundings, plan.control) as wiring:
            sent = [folder, *wiring.handed_over, *handed, *wiring.for_program]
            told = {"plan": _for_child(plan), "doors": surroundings.doors, "sent": len(sent)}
            os_pid = self._tell(json.dumps(told).encode(), sent)
            self._refill_later()
            if surroundings.namespaces is not None:
                os_pid = wiring.sibling(os_pid)
            return wiring.keep_parent_side(os_pid)

    def prepare(self) -> None:
        """Fork a child that waits, unless there is one. Raises LimitReached."""
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
        self._forget()
        self._refill_later()

    def _tell(self, message: bytes, descriptors: list[int]) -> int:
        """Hand the plan to the waiting child, or to a new one where that was killed; return its OS pid."""
        while True:
            self.prepare()
            sock, os_pid = self._sock, self.os_pid
            if sock is None:
                raise RuntimeError("no child after prepare")
            try:
                socket.send_fds(sock, [message], descriptors)
                return os_pid
            except (BrokenPipeError, ConnectionResetError):
                continue
            finally:
                self._forget()

    def _forget(self) -> None:
        if self._sock is not None:
            self._sock.close()
        self._sock = None
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
            # Whoever asks for the next start is told.
            return


def _wait(sock: socket.socket) -> NoReturn:
    """The child: hold nothing of the parent's, and become what the plan says."""
    try:
        child.detach()
        own = sock.fileno()
        os.closerange(3, own)
        os.closerange(own + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        message, ancillary, _flags, _address = sock.recvmsg(
            MAX_MESSAGE_BYTES, ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC
        )
        if message:
            told = json.loads(message)
            plan, descriptors = LaunchPlan.from_dict(told["plan"]), descriptors_of(ancillary)
            child.become(plan, told["doors"], descriptors, told["sent"])
    finally:
        os._exit(0)


def _for_child(plan: LaunchPlan) -> dict[str, Any]:
    """The plan without what only its parent needs: half of it, which would be parsed while somebody waits."""
    told = plan.to_dict()
    return {**told, "meta": {}, "confine": {**told["confine"], "holder": None}}


def _own_memory_kib() -> int:
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize() // 1024
    except OSError:
        # No descriptor is left: the start will say so, and where it does not, no figure can be told.
        return sys.maxsize
