"""The supervisor's state of one running process, which it hands over to the next supervisor: one record.

Knows fields and descriptors; not what is done with them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from mhnos_runtime.launch import ExitRecord, LaunchPlan
from mhnos_runtime.supervisor.holder import NamespacesState


class Deadline(NamedTuple):
    """A signal that is due. at: on the monotonic clock, s. reason: of the end that it begins, or "" if an end
    has begun."""

    at: float
    signal: int
    reason: str


@dataclass(slots=True)
class ProcessState:
    """Descriptors are -1 if there is none. plan: without the parts that only the child needed. verdict_fd:
    the child reports here why it could not start; open until it has. sources: descriptor to stream. size:
    (columns, rows) of the terminal, None for pipes. start, end: of the main process, on the monotonic clock,
    s. main_status: its wait status, None while it runs. with_host: whether it was ended because the process
    that it is within had ended. least_kib: the supervisor's memory when it forked the child.
    """

    pid: int
    os_pid: int
    plan: LaunchPlan
    log_fd: int
    input_fd: int
    control_fd: int
    verdict_fd: int
    sources: dict[int, int]
    size: tuple[int, int] | None
    start: float
    start_time_ms: int
    least_kib: int
    namespaces: NamespacesState | None = None
    exit: ExitRecord | None = None
    main_status: int | None = None
    end: float = 0.0
    cpu_ms: int = 0
    max_rss_kib: int = 0
    deadlines: list[Deadline] = field(default_factory=list)
    end_reason: str = ""
    with_host: bool = False
    last_signal: str = ""

    @property
    def own_descriptors(self) -> set[int]:
        named = {self.log_fd, self.input_fd, self.control_fd, self.verdict_fd}
        return (named | self.sources.keys()) - {-1}

    @property
    def descriptors(self) -> set[int]:
        """Descriptors that must stay open for the next supervisor."""
        around = () if self.namespaces is None else self.namespaces.descriptors
        return self.own_descriptors | set(around)
