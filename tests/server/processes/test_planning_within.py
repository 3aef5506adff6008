"""Plans of what is to be within another process: what a request brings, and what is that process's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.launch import Choice, LaunchPlan
from mhnos_runtime.process.facts import ProcessFacts
from mhnos_runtime.process.table import Process
from mhnos_runtime.sandbox import Isolation, Policy
from mhnos_runtime.server.processes.planning import Planner
from mhnos_runtime.wire import messages as m
from tests.server.processes.scene import Processes, planner, shell
from tests.server.processes.test_planning import KINDS, of, planned, root

__all__ = ["planned", "root"]


def host_of(processes: Processes, network: str = "host", level: str = "none") -> Process:
    isolation = Isolation(level, network, 5, (), 0, True, {"memory": "watchdog"}, False)
    return processes.make(1005, cwd="/app", isolation=isolation, sandbox=level)


def within(planned: Planner, host: Process, request: m.Spawn) -> LaunchPlan:
    with planned.prepare(planned.asked(request, host), {}) as start:
        return start.plan


def test_what_is_within_another_brings_only_what_is_on_top(planned: Planner, processes: Processes) -> None:
    host = host_of(processes)
    made = within(planned, host, shell("true", pty=False))
    of_kind = {"PYTHONUNBUFFERED": "1"}
    assert (made.within, made.env, made.choice) == (1005, of_kind, Choice(cwd="/app"))
    found = ProcessFacts.decode(made.facts)
    assert (found.within, found.cwd, found.isolation) == (1005, "/app", host.facts.isolation)
    options = m.SpawnOptions(cwd="/", env={"A": "1", "PATH": "/x"})
    made = within(planned, host, shell("true", pty=True, options=options))
    assert made.env == {"A": "1", "PATH": "/x", "TERM": "xterm-256color"}
    assert made.choice == Choice(cwd="/")
    assert set(within(planned, host, of("serves", "main.sh")).env) == {"TOKEN"}


@pytest.mark.parametrize("field", [{"network": "host"}, {"limits": m.SpawnLimits()}])
def test_what_is_within_another_has_its_network_and_limits(
    planned: Planner, processes: Processes, field: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest, match="network and limits are those of process 1005"):
        planned.asked(shell(**field), host_of(processes))


def test_no_socket_of_the_machine_comes_into_another_network(root: Path, processes: Processes) -> None:
    made = planner(root.parent, *KINDS, policy=Policy("relaxed"))
    with pytest.raises(InvalidRequest, match="in another network"):
        within(made, host_of(processes, "none", "relaxed"), of("serves", "main.sh"))
    made._workspace.close()
