"""The check before a hand-over: whether the installed version can go on, and with which settings. Knows how
it is asked and answers; not what settings mean."""

from __future__ import annotations

import os
import sys
from typing import Any

from mhnos_runtime.supervisor import child, handover
from mhnos_runtime.supervisor.log import Log

#: Exit code of a version whose own files processes could change. Any other code but 0: it cannot go on.
EXPOSED = 3
#: The program that reads settings, since a supervisor has no parser: it replaces those in a file by
#: {settings, changes: [{name, old, new, source, reloads}], problem, hint}.
SETTINGS_MODULE = ("-P", "-m", "mhnos_runtime.config")
#: Characters of settings. Each server is told them in one message, with some paths beside them; the start has
#: made sure of that, and what a reload adds are names of hosts and origins.
MAX_SETTINGS = 64 * 1024


class Check:
    """One at a time. os_pid: of the child that is asked, 0 for none."""

    def __init__(self, log: Log) -> None:
        self.os_pid = 0
        self._log = log
        self._before = ""
        self._fd = -1

    def start(self, own: str, settings: str) -> None:
        """Ask the installed version whether it understands this state, whether its files are safe from
        processes (own: `ownfiles.Trust`), and what is found of the settings now. Raises OSError."""
        self._before = settings
        self._fd = handover.write({"settings": settings})
        os.set_inheritable(self._fd, False)
        asked = ("--understands", str(handover.STATE_VERSION), own, str(self._fd))
        try:
            self.os_pid = child.start_plain([sys.executable, *handover.MODULE, *asked], [self._fd])
        except OSError:
            os.close(self._fd)
            raise

    def ended(self, status: int) -> str | None:
        """The settings to go on with. None: all runs on as it is, and the log says why."""
        self.os_pid = 0
        code, answer = os.waitstatus_to_exitcode(status), self._answer()
        if code == EXPOSED:
            self._log.write(
                "error", "not reloaded: processes could change the installed version; all runs on"
            )
        elif code != 0 or answer is None:
            self._log.write(
                "error",
                "not reloaded: the installed version does not understand this one's state; all runs on",
            )
        elif answer.get("problem"):
            why = {name: answer[name] for name in ("problem", "hint") if answer.get(name)}
            self._log.write("error", "not reloaded: the settings cannot be used; all runs on", **why)
        elif len(answer["settings"]) > max(MAX_SETTINGS, len(self._before)):
            self._log.write("error", "not reloaded: the settings are too long; all runs on")
        else:
            self._tell(answer.get("changes", []))
            settings: str = answer["settings"]
            return settings
        return None

    def _answer(self) -> dict[str, Any] | None:
        """None where the child has left half of one."""
        os.lseek(self._fd, 0, os.SEEK_SET)
        try:
            return handover.read(self._fd)
        except ValueError:
            return None

    def _tell(self, changes: list[dict[str, Any]]) -> None:
        for each in changes:
            fields = {name: each[name] or "none" for name in ("old", "new")} | {"source": each["source"]}
            if each["reloads"]:
                self._log.write("info", "a setting has changed", setting=each["name"], **fields)
            else:
                self._log.write(
                    "warning", "a changed setting waits for the next start", setting=each["name"], **fields
                )
