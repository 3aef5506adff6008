"""Which process a plan is to be within. Knows the table of processes; not what they share."""

from __future__ import annotations

from collections.abc import Mapping

from mhnos_runtime.errors import Refused
from mhnos_runtime.launch import LaunchPlan
from mhnos_runtime.supervisor.process import Process


def host_of(plan: LaunchPlan, processes: Mapping[int, object]) -> Process | None:
    """The process that the plan's is to be within; None for none. Raises Refused (not-running)."""
    if not plan.within:
        return None
    found = processes.get(plan.within)
    if not isinstance(found, Process) or not found.host.steady or not found.steady:
        raise Refused(
            f"process {plan.within} does not run, or is ending",
            code="not-running",
            hint="mhnos-runtime ps lists the processes that run",
        )
    return found.host
