"""What a server may ask: every request as it is sent, and each with one thing wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mhnos_runtime.bounds import FACTS_BYTES, FOUND_BYTES, MAX_INTEGER, MESSAGE_BYTES
from mhnos_runtime.channel import encode
from mhnos_runtime.launch import (
    DECIDED,
    FORBIDDEN_PLAN,
    REASONS,
    Choice,
    ExitRecord,
    LaunchPlan,
    ProcessRecord,
    Wish,
)
from mhnos_runtime.supervisor import requests
from mhnos_runtime.wire.messages import ExitReason

PLAN = LaunchPlan(
    ("/bin/true", "a"),
    {"A": "b"},
    pty=(80, 24),
    choice=Choice(Wish("none", memory_bytes=1 << 30), "/here", ("/engines/workerd/1",)),
    facts={"name": "é"},
)
SPAWN: dict[str, Any] = {"do": "spawn", "request": 1 << 50, "plan": json.loads(encode(PLAN.to_request()))}


def test_every_request_is_read_as_it_was_sent() -> None:
    assert requests.parse(SPAWN) == requests.Spawn(1 << 50, PLAN)
    body = {"do": "kill", "pid": 1000, "signal": 15, "reason": "idle", "escalate": False}
    assert requests.parse(body) == requests.Kill(1000, 15, "idle", False)
    assert requests.parse({"do": "close_stdin", "pid": 1000}) == requests.CloseStdin(1000)
    body = {"do": "size", "pid": 1000, "columns": 65535, "rows": 0}
    assert requests.parse(body) == requests.Size(1000, 65535, 0)
    body = {"do": "note", "pid": 1000, "found": {"ports": [{}]}}
    assert requests.parse(body) == requests.Note(1000, {"ports": [{}]})
    assert requests.parse({"do": "forget", "pid": 1000}) == requests.Forget(1000)
    assert requests.parse({"do": "discard", "pid": 1000}) == requests.Discard(1000)
    assert requests.parse({"do": "token", "token": {"digest": "x"}}) == requests.Token({"digest": "x"})


def changed(path: str, value: object) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(json.dumps(SPAWN))
    *way, last = path.split(".")
    place = body["plan"]
    for name in way:
        place = place[name]
    place[last] = value
    return body


WRONG: list[tuple[str, Any]] = [
    *(("pty", size) for size in ([10**12, 1], [80], [80.0, 24], "80", [True, 24], [-1, 1])),
    *(("retention_bytes", value) for value in (1 << 60, -1, None)),
    *((name, 1 << 31) for name in ("timeout_ms", "stall_ms")),
    *(("escalation", value) for value in ([[0, 65]], [[0, 0]], [[-1, 9]], [[1, 9]] * 17)),
    *(("argv", []), ("env", [])),
    *(("argv", value) for value in (["a\0"], [1], "ls", ["\ud800"], ["x"] * 20_000)),
    *(("env", value) for value in ({"A": 1}, {"A": "\0"})),
    *(("handed", 25), ("control", 1), ("watched", None), ("facts", []), ("more", 1)),
    *(("confine", None), ("rlimits", [])),
    *(("choice.wish.network", 1), ("choice.wish.memory_bytes", -1), ("choice.wish.tasks", 2**53)),
    *(("choice.cwd", None), ("choice.engines", ["/a\0"]), ("choice.more", 1), ("choice", None)),
]


@pytest.mark.parametrize(("path", "value"), WRONG)
def test_a_plan_with_one_thing_wrong_is_none_and_says_whose_it_was(path: str, value: object) -> None:
    with pytest.raises(requests.BadRequest) as refused:
        requests.parse(changed(path, value))
    assert refused.value.request == SPAWN["request"]
    assert len(refused.value.message) < 200


@pytest.mark.parametrize("name", DECIDED)
def test_a_plan_that_says_what_is_not_its_to_say_is_forbidden(name: str) -> None:
    with pytest.raises(requests.BadRequest, match=name) as refused:
        requests.parse(changed(name, PLAN.to_dict()[name]))
    assert refused.value.code == FORBIDDEN_PLAN


def test_a_plan_that_lacks_anything_is_none() -> None:
    for name in SPAWN["plan"]:
        plan = {key: value for key, value in SPAWN["plan"].items() if key != name}
        with pytest.raises(requests.BadRequest, match=name):
            requests.parse({**SPAWN, "plan": plan})


@pytest.mark.parametrize("request_", [None, -1, "1", 1.0, True, 2**63])
def test_a_spawn_without_a_number_is_nobodys(request_: object) -> None:
    with pytest.raises(requests.BadRequest) as refused:
        requests.parse({**SPAWN, "request": request_})
    assert refused.value.request is None


def test_the_largest_record_that_may_come_to_be_fits_into_a_message() -> None:
    """Whatever its texts are escaped to: both bounds are of bytes as they are sent."""
    facts = {"name": "\1" * ((FACTS_BYTES - 100) // 6)}
    found = {"ports": "\1" * ((FOUND_BYTES - 100) // 6)}
    requests.parse({**SPAWN, "plan": {**SPAWN["plan"], "facts": facts}})
    facts = requests.with_found(facts, found)
    ended = ExitRecord(255, "SIGRTMIN+30", "killed", "x" * 1000, *[MAX_INTEGER] * 5)
    record = ProcessRecord(2**31 - 1, 2**31 - 1, MAX_INTEGER, (65535, 65535), facts, exit=ended)
    told = {"event": "restored", "request": 2**63 - 1, "record": record.to_dict()}
    assert FACTS_BYTES + FOUND_BYTES - 300 < len(encode(told)) < MESSAGE_BYTES
    with pytest.raises(requests.BadRequest, match="allowed"):
        requests.with_found(facts, {"more": "x" * 300})


def test_the_reasons_are_those_of_the_protocol() -> None:
    assert ExitReason.__args__ == REASONS  # type: ignore[attr-defined]  # of a Literal
