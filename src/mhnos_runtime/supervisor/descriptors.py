"""Descriptors: as many as the machine allows, and enough for each start, or the start is refused.

Knows how many a start takes; not what is started.
"""

from __future__ import annotations

import resource

from mhnos_runtime.channel import duplicates
from mhnos_runtime.launch import LaunchPlan, StartDescriptors
from mhnos_runtime.proc import free_descriptors
from mhnos_runtime.supervisor.child import none_left

#: The most that one start has open at once, before it closes most of them: log, pipes, verdict, control
#: socket, the next child's socket, files of control groups.
START_DESCRIPTORS = 24
#: More for a start in a sandbox: pipes and files of its holder, its network's and the next one's, and nine
#: namespaces.
SANDBOX_DESCRIPTORS = 44
#: What a start that waits for its sandbox will keep: ends of pipes, terminal, log, holder and verdict.
WAITING_DESCRIPTORS = 12
#: Enough to start a server, read /proc at the end of a tree, and write records.
KEPT_DESCRIPTORS = 16


def check_room(plan: LaunchPlan, waiting: int) -> None:
    """Refuse a start that could fail half-way. waiting: other starts that wait for a sandbox. Raises
    LimitReached."""
    needed = START_DESCRIPTORS + plan.handed
    if plan.confine.holder is not None or plan.within:
        needed += SANDBOX_DESCRIPTORS
    if free_descriptors() < needed + WAITING_DESCRIPTORS * waiting + KEPT_DESCRIPTORS:
        raise none_left("no descriptors are left for another process")


def duplicated(descriptors: StartDescriptors) -> StartDescriptors:
    """All of them or none. Raises LimitReached."""
    try:
        return StartDescriptors.received(duplicates(descriptors.sent()))
    except OSError as error:
        raise none_left(f"no descriptors for another process: {error.strerror}") from error


def raise_limit() -> None:
    """Use as many as the machine allows: a process costs three descriptors here and two in the server."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
