"""All that a supervisor knows of one process, as it is handed over; its fields are checked both ways."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest

from mhnos_runtime.launch import Confinement, ExitRecord, LaunchPlan, Limits
from mhnos_runtime.supervisor import plain
from mhnos_runtime.supervisor.holder import NamespacesState
from mhnos_runtime.supervisor.state import Deadline, ProcessState

PLAN = LaunchPlan(
    ("/bin/sh", "-c", "é"),
    {},
    (80, 24),
    escalation=((500, 1), (5000, 9)),
    confine=Confinement(limits=Limits(1 << 30, cgroups=(("memory", "/sys/fs/cgroup/memory/x"),))),
    facts={"version": 1, "ports": [{"name": "http"}]},
)
RUNNING = ProcessState(
    pid=1000,
    os_pid=77,
    plan=PLAN,
    log_fd=10,
    input_fd=11,
    control_fd=-1,
    verdict_fd=-1,
    sources={11: 0, 12: 1},
    size=(80, 24),
    start=1.5,
    start_time_ms=5,
    least_kib=9,
    namespaces=NamespacesState(78, 79, 13, 14),
    deadlines=[Deadline(2.25, 9, "timeout")],
)
ENDED = replace(
    RUNNING,
    input_fd=-1,
    sources={},
    size=None,
    namespaces=None,
    exit=ExitRecord(0, None, "exit", "", 1, 1, None, 0, 7),
    main_status=0,
    deadlines=[],
)


@pytest.mark.parametrize("name", [each.name for each in fields(ProcessState)])
def test_a_field_that_is_missing_or_unknown_is_an_error(name: str) -> None:
    whole = json.loads(json.dumps(plain.encode(RUNNING)))
    assert plain.decode(ProcessState, whole) == RUNNING
    with pytest.raises(TypeError, match="ProcessState has other fields"):
        plain.decode(ProcessState, {key: value for key, value in whole.items() if key != name})
    with pytest.raises(TypeError, match="ProcessState has other fields"):
        plain.decode(ProcessState, {**whole, f"{name}_": 1})
