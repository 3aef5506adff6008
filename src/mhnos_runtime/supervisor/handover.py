"""From one supervisor to the next in the same OS process: state and descriptors over an exec.

Knows how; the contents of the state are the supervisor's. The OS pid stays, so that processes keep their
parent, and their exits are seen.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from mhnos_runtime.supervisor import plain
from mhnos_runtime.supervisor.config import Config
from mhnos_runtime.supervisor.holder import NetworkState
from mhnos_runtime.supervisor.state import ProcessState
from mhnos_runtime.supervisor.temporary import FoldersState

#: The version of HandOver and everything in it. A supervisor refuses other versions.
STATE_VERSION = 8
MODULE = ("-P", "-m", "mhnos_runtime.supervisor")
#: Blocked from before the exec until the next supervisor has its handlers.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


@dataclass(frozen=True, slots=True)
class HandOver:
    """Everything that the next supervisor goes on with. ended: pids of processes in the archive."""

    config: Config
    next_pid: int
    processes: list[ProcessState]
    ended: list[int]
    networks: list[NetworkState]
    folders: FoldersState

    @property
    def descriptors(self) -> set[int]:
        """Descriptors that must stay open."""
        found = {self.config.lock_fd, *self.config.listeners, *self.folders.descriptors}
        return found.union(
            *(each.descriptors for each in self.processes),
            *(each.namespaces.descriptors for each in self.networks),
        )

    def encode(self) -> dict[str, Any]:
        return {"version": STATE_VERSION, "state": plain.encode(self)}

    @classmethod
    def decode(cls, data: dict[str, Any]) -> HandOver:
        """Raises ValueError for another version; the check has found that before the old one goes."""
        if data.get("version") != STATE_VERSION:
            raise ValueError(f"a state of version {data.get('version')!r}; this one reads {STATE_VERSION}")
        return plain.decode(cls, data["state"])


def replace(state: HandOver) -> NoReturn:
    """Become the installed version, which reads `state` and has its descriptors. Raises OSError."""
    fd = write(state.encode())
    kept = state.descriptors
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    signal.set_wakeup_fd(-1)
    try:
        for each in kept:
            os.set_inheritable(each, True)
        os.execv(sys.executable, [sys.executable, *MODULE, "--resume", str(fd)])
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.close(fd)
        with contextlib.suppress(OSError):
            keep_to_oneself(kept)


def keep_to_oneself(descriptors: Iterable[int]) -> None:
    """Close descriptors that came over an exec at the next exec, which is a process's: with the listening
    sockets it could serve in the server's place."""
    for fd in descriptors:
        os.set_inheritable(fd, False)


def write(data: dict[str, Any]) -> int:
    """An inheritable descriptor of a memory file that holds `data` as JSON."""
    fd = os.memfd_create("mhnos-runtime", 0)
    with open(fd, "w", encoding="utf-8", closefd=False) as file:
        json.dump(data, file)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def read(fd: int) -> dict[str, Any]:
    """What `write` wrote; closes the descriptor."""
    with open(fd, encoding="utf-8") as file:
        data: dict[str, Any] = json.load(file)
    return data
