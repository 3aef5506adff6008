"""What one supervisor hands to the next comes back as it was; another version is refused."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from mhnos_runtime.launch import Confinement, ExitRecord, Hello, Holder, LaunchPlan, Limits
from mhnos_runtime.supervisor import handover, plain
from mhnos_runtime.supervisor.config import Config
from mhnos_runtime.supervisor.handover import STATE_VERSION, HandOver
from mhnos_runtime.supervisor.holder import HolderKey, NamespacesState, NetworkState
from mhnos_runtime.supervisor.state import Deadline, ProcessState
from mhnos_runtime.supervisor.temporary import FoldersState

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
HELLO = Hello("s", 2, {"level": "none"}, "{}", {"digest": "x"}, "/bin", "", "there is none", (3, 4))
CONFIG = Config(["-m", "x"], 5, Path("/state"), 100, HELLO, False, [])
KEY = HolderKey(Holder("bwrap", ("--x",), (("/a", "b"),)), (1, 2))
STATE = HandOver(
    CONFIG,
    next_pid=1002,
    processes=[RUNNING, ENDED],
    ended=[999],
    networks=[NetworkState(KEY, NamespacesState(1, 2, 20, 21))],
    folders=FoldersState("/tmp/x", 30, 4, 0),
)


def test_everything_comes_back_as_it_was() -> None:
    assert HandOver.decode(handover.read(handover.write(STATE.encode()))) == STATE


def test_every_descriptor_stays_open() -> None:
    assert STATE.descriptors == {3, 4, 5, 10, 11, 12, 13, 14, 20, 21, 30}
    assert RUNNING.own_descriptors == {10, 11, 12}
    assert replace(STATE.folders, fd=-1).descriptors == ()


@pytest.mark.parametrize("version", [STATE_VERSION - 1, STATE_VERSION + 1, None])
def test_a_state_of_another_version_is_refused(version: int | None) -> None:
    with pytest.raises(ValueError, match=f"this one reads {STATE_VERSION}"):
        HandOver.decode({**STATE.encode(), "version": version})


@pytest.mark.parametrize("name", [each.name for each in fields(ProcessState)])
def test_a_field_that_is_missing_or_unknown_is_an_error(name: str) -> None:
    whole = json.loads(json.dumps(plain.encode(RUNNING)))
    assert plain.decode(ProcessState, whole) == RUNNING
    with pytest.raises(TypeError, match="ProcessState has other fields"):
        plain.decode(ProcessState, {key: value for key, value in whole.items() if key != name})
    with pytest.raises(TypeError, match="ProcessState has other fields"):
        plain.decode(ProcessState, {**whole, f"{name}_": 1})
