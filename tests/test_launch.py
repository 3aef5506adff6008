"""Plans and records survive the way they travel: as JSON, with lists for tuples."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.launch import (
    ExitRecord,
    Hello,
    LaunchPlan,
    OtherVersion,
    ProcessDescriptors,
    ProcessRecord,
    StartDescriptors,
)

TEXT = st.text(max_size=20)
NUMBER = st.integers(0, 2**53)
META = st.dictionaries(
    TEXT, st.none() | st.booleans() | NUMBER | TEXT | st.lists(TEXT, max_size=3), max_size=3
)
SIZE = st.none() | st.tuples(st.integers(1, 2000), st.integers(1, 2000))

PLANS = st.builds(
    LaunchPlan,
    argv=st.lists(TEXT, min_size=1, max_size=5).map(tuple),
    env=st.dictionaries(TEXT, TEXT, max_size=4),
    pty=SIZE,
    retention_bytes=NUMBER,
    stall_ms=NUMBER,
    timeout_ms=NUMBER,
    escalation=st.lists(st.tuples(NUMBER, st.integers(1, 64)), max_size=3).map(tuple),
    rlimits=st.lists(st.tuples(st.integers(0, 15), NUMBER, NUMBER), max_size=3).map(tuple),
    facts=META,
)
EXITS = st.builds(
    ExitRecord,
    code=st.none() | st.integers(0, 255),
    signal=st.none() | TEXT,
    reason=TEXT,
    evidence=TEXT,
    runtime_ms=NUMBER,
    cpu_ms=st.none() | NUMBER,
    max_rss_bytes=st.none() | NUMBER,
    bytes=NUMBER,
    end_time_ms=NUMBER,
)
RECORDS = st.builds(
    ProcessRecord,
    pid=NUMBER,
    os_pid=NUMBER,
    start_time_ms=NUMBER,
    pty=SIZE,
    facts=META,
    stdin_open=st.booleans(),
    exit=st.none() | EXITS,
)


@given(PLANS)
def test_plans(plan: LaunchPlan) -> None:
    assert LaunchPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


@given(EXITS)
def test_exits(record: ExitRecord) -> None:
    assert ExitRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record


@given(RECORDS)
def test_records(record: ProcessRecord) -> None:
    assert ProcessRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_a_plan_without_its_program_or_with_something_else_is_an_error() -> None:
    whole = LaunchPlan(("/bin/true",), {}).to_dict()
    for name in ("argv", "pty", "escalation", "rlimits", "env"):
        with pytest.raises((KeyError, TypeError)):
            LaunchPlan.from_dict({key: value for key, value in whole.items() if key != name})
    with pytest.raises(TypeError):
        LaunchPlan.from_dict({**whole, "unknown": 1})


HELLO = Hello("s", 2, {"a": [1]}, "{}", None, "/bin", "", "there is none", (3, 4))


def test_a_hello_arrives_as_it_was_said() -> None:
    assert Hello.from_dict(json.loads(json.dumps({"event": "hello", **HELLO.to_dict()}))) == HELLO


@pytest.mark.parametrize("version", [0, 99, None, "1"])
def test_a_hello_of_another_version_says_what_to_do(version: object) -> None:
    with pytest.raises(OtherVersion, match="of the channel, this server") as raised:
        Hello.from_dict({"event": "hello", "version": version})
    assert "mhnos-runtime reload" in raised.value.hint


def test_nothing_changes_them() -> None:
    with pytest.raises(FrozenInstanceError):
        LaunchPlan(("/bin/true",), {}).pty = (1, 1)  # type: ignore[misc]


@pytest.mark.parametrize(
    "descriptors",
    [ProcessDescriptors(*row) for row in ((3,), (3, 4), (3, -1, 5), (3, 4, 5), (-1,))],
)
def test_what_a_server_gets_of_a_process_arrives_as_it_was_sent(descriptors: ProcessDescriptors) -> None:
    sent = descriptors.sent()
    assert ProcessDescriptors.received(sent, control=descriptors.control >= 0) == descriptors


def test_of_a_process_that_was_closed_meanwhile_nothing_arrives() -> None:
    """Its record was sent before, and says that there is a control socket."""
    assert ProcessDescriptors.received([], control=True) == ProcessDescriptors(-1)


@pytest.mark.parametrize("descriptors", [StartDescriptors(3), StartDescriptors(3, (4, 5))])
def test_what_comes_with_a_plan_arrives_as_it_was_sent(descriptors: StartDescriptors) -> None:
    assert StartDescriptors.received(descriptors.sent()) == descriptors
    assert StartDescriptors.received([]) == StartDescriptors(-1)
