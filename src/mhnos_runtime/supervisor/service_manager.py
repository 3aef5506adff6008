"""The service manager, and what it is told: sd_notify(3) over a datagram socket, without its library.

Knows the variables that systemd sets; says nothing where there are none.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

from mhnos_runtime.supervisor.loop import Loop


class ServiceManager:
    """Is told that the runtime is ready, reloads or stops, each once, and that its loop turns."""

    def __init__(self, loop: Loop, environment: Mapping[str, str] = os.environ) -> None:
        self._loop = loop
        address = environment.get("NOTIFY_SOCKET", "")
        # A name that begins with @ is in the abstract namespace (unix(7)).
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog_seconds = _watchdog_seconds(environment)
        self._said = ""

    def watch(self) -> None:
        """Show from now on that the loop turns, twice in each of the manager's watchdog times."""
        if self._watchdog_seconds:
            self._send("WATCHDOG=1")
            self._loop.after(self._watchdog_seconds / 2, self.watch)

    def ready(self) -> None:
        """Clients are served. Said again only after a reload."""
        if self._said != "ready":
            self._say("ready", "READY=1\nSTATUS=serving")

    def reloading(self) -> None:
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._say("reloading", f"RELOADING=1\nMONOTONIC_USEC={now_us}\nSTATUS=reloading")

    def stopping(self) -> None:
        self._say("stopping", "STOPPING=1\nSTATUS=ending processes")

    def _say(self, state: str, lines: str) -> None:
        if self._said != "stopping":
            self._said = state
            self._send(lines)

    def _send(self, lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                # A manager that does not read must not hold up the processes' output.
                sock.setblocking(False)
                sock.sendto(lines.encode(), self._address)
        except OSError:
            pass  # a manager that is gone has nothing to be told


def _watchdog_seconds(environment: Mapping[str, str]) -> float:
    """0 where the manager does not watch this process (sd_watchdog_enabled(3))."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0
    text = environment.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isdigit() else 0
