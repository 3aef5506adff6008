"""What is found out about processes after their start, and their names: kept here, and for the next server.

Knows no client and no plan.
"""

from __future__ import annotations

import time

from msgspec import UNSET

from mhnos_runtime.errors import Refused
from mhnos_runtime.process import names
from mhnos_runtime.process.facts import UNKNOWN, Found
from mhnos_runtime.process.table import Process, ProcessTable
from mhnos_runtime.server.processes.link import SupervisorLink
from mhnos_runtime.server.processes.news import Tell


class Records:
    """Changes the facts about processes."""

    def __init__(self, table: ProcessTable, link: SupervisorLink, tell: Tell) -> None:
        self._table = table
        self._link = link
        self._tell = tell

    def note(self, process: Process, found: Found) -> None:
        """Keep what was found out about a process, and wake its viewers."""
        process.facts = process.facts.with_found(found)
        self._link.note(process.pid, found)
        if found.ready is not UNSET:
            self._tell("ready", process, _now_ms())
        process.wake()

    def rename(self, process: Process, name: str | None) -> None:
        """Give a process a name that is free, or none. Raises InvalidRequest, and Refused (name-taken), also
        where a server of another version has written the facts: what nobody can read is not written to."""
        if process.facts is UNKNOWN:
            raise Refused(
                f"nothing is known of process {process.pid} but that it is there",
                hint="a server of the version that started it can rename it",
            )
        if name is not None:
            names.check(name)
            self._table.check_name(name, process)
        if name != process.facts.name:
            self.note(process, Found(name=name))
            self._tell("renamed", process, _now_ms())


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
