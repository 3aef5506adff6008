"""What a server may have started, as a pure function: every way to ask for more, and chance."""

from __future__ import annotations

import json
import random
import resource
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from mhnos_runtime.errors import Refused
from mhnos_runtime.launch import Choice, LaunchPlan, Wish
from mhnos_runtime.sandbox import LEVELS, NETWORKS, Allowed, Policy, Sandbox
from mhnos_runtime.sandbox.policy import OFFERED
from tests.sandbox.test_plan import FACTS, V1


class Filters(dict[str, str]):
    """Each filter is its own name."""

    def __missing__(self, name: str) -> str:
        return name


ENGINES = "/var/lib/engines"


def allowed(level: str = "strict", network: str = "host", **ceilings: Any) -> Allowed:
    policy = Policy(level, network, 1 << 30, 64, 100, 60, 1 << 20, 256, (1234, 1235))  # type: ignore[arg-type]
    facts = replace(FACTS, filters=Filters({"any": "any"}), cgroups=V1)
    sandbox = Sandbox(policy, facts, "/srv/ws", own_folders=(("node", "/tmp/node-{uid}"),))
    made = Allowed(sandbox, ENGINES, 10, 1 << 20, 10_000, 5_000)
    return replace(made, **ceilings)


def plan(**parts: Any) -> LaunchPlan:
    return LaunchPlan(("/bin/true",), {}, **parts)


def test_it_survives_its_way_to_the_supervisor() -> None:
    for level in LEVELS:
        made = allowed(level)
        assert Allowed.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_a_request_says_nothing_of_what_is_decided() -> None:
    whole = allowed().confined(plan(choice=Choice(Wish("none", 5), "/a", (f"{ENGINES}/a/b",))), False)
    sent = json.loads(json.dumps(whole.to_request()))
    assert not {"confine", "rlimits"} & sent.keys()
    assert allowed().confined(LaunchPlan.from_request(sent), handed_sockets=False) == whole


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({}, ""),
        ({"retention_bytes": 0, "stall_ms": 0, "escalation": ((0, 9),)}, ""),
        ({"escalation": ((100, 1), (5_000, 9))}, ""),
        ({"retention_bytes": (1 << 20) + 1}, "bytes of output"),
        ({"retention_bytes": -1}, "bytes of output"),
        ({"stall_ms": 10_001}, "block"),
        ({"stall_ms": -1}, "block"),
        ({"escalation": ()}, "SIGKILL"),
        ({"escalation": ((0, 15),)}, "SIGKILL"),
        ({"escalation": ((5_001, 9),)}, "SIGKILL"),
        ({"escalation": ((-1, 1), (0, 9))}, "SIGKILL"),
        ({"handed": 24}, ""),
        ({"handed": 25}, "descriptors"),
        ({"handed": -1}, "descriptors"),
        ({"choice": Choice(cwd="/a/b c/ü")}, ""),
        ({"choice": Choice(cwd="")}, "directory"),
        ({"choice": Choice(cwd="a")}, "directory"),
        ({"choice": Choice(cwd="/a/../..")}, "directory"),
        ({"choice": Choice(cwd="/./a")}, "directory"),
        ({"choice": Choice(cwd="/a\0")}, "directory"),
        ({"choice": Choice(engines=(f"{ENGINES}/node/1",))}, ""),
        ({"choice": Choice(engines=(f"{ENGINES}/node/1", "/"))}, "engine"),
        ({"choice": Choice(engines=(ENGINES,))}, "engine"),
        ({"choice": Choice(engines=(f"{ENGINES}/node",))}, "engine"),
        ({"choice": Choice(engines=(f"{ENGINES}/node/..",))}, "engine"),
        ({"choice": Choice(engines=(f"{ENGINES}/../etc",))}, "engine"),
        ({"choice": Choice(engines=(f"{ENGINES}//1",))}, "engine"),
        ({"choice": Choice(engines=(f"{ENGINES}/node/1/bin",))}, "engine"),
        ({"choice": Choice(engines=(f"{ENGINES}2/node/1",))}, "engine"),
    ],
)
def test_each_reason(parts: dict[str, Any], reason: str) -> None:
    found = allowed().refuses(plan(**parts))
    assert (reason in found) if reason else found == ""


@pytest.mark.parametrize("level", LEVELS)
def test_a_network_that_cannot_be_given_is_forbidden(level: str) -> None:
    for network in NETWORKS:
        wished = plan(choice=Choice(Wish(network)))
        if network in OFFERED[level]:  # type: ignore[index]
            allowed(level).confined(wished, handed_sockets=False)
            continue
        with pytest.raises(Refused, match="network"):
            allowed(level).confined(wished, handed_sockets=False)


def something(dice: random.Random) -> Any:
    numbers = (0, -1, 1, 1 << 10, 1 << 40, 1 << 70)
    texts = ("", "/", "/root", "/../..", ENGINES, f"{ENGINES}/a/b", f"{ENGINES}/../..", "host", "none", "\0")
    return dice.choice([dice.choice(numbers), dice.choice(texts), None, dice.randrange(1 << 33)])


def chance(dice: random.Random) -> LaunchPlan:
    wish = Wish(*(something(dice) if dice.random() < 0.4 else None for _ in range(7)))
    cwd = something(dice) if dice.random() < 0.3 else "/a"
    engines = tuple(something(dice) for _ in range(dice.choice((0, 0, 0, 1, 2))))
    parts = {
        name: something(dice)
        for name in ("retention_bytes", "stall_ms", "handed", "timeout_ms")
        if dice.random() < 0.1
    }
    return plan(choice=Choice(wish, cwd, engines), **parts)


def sources(options: Iterable[str]) -> set[str]:
    """What of the machine is shown inside."""
    rows = list(options)
    return {rows[at + 1] for at, each in enumerate(rows) if "bind" in each}


def written(options: Iterable[str]) -> set[str]:
    """What of the machine can be written inside."""
    rows = list(options)
    return {rows[at + 1] for at, each in enumerate(rows) if each == "--bind"}


def test_chance_never_gets_more(dice: random.Random, rounds: Iterable[int]) -> None:
    """Whatever is asked for is refused, makes no sense, or is at most what the operator gives."""
    made = given = 0
    for _ in rounds:
        made += 1
        level, network = dice.choice(LEVELS), dice.choice(NETWORKS)
        if network not in OFFERED[level]:
            continue
        policy = allowed(level, network)
        sockets = dice.random() < 0.5
        try:
            got = policy.confined(chance(dice), sockets)
        except (Refused, TypeError, AttributeError):
            continue
        given += 1
        check(policy, got, policy.confined(plan(), sockets))
    assert given or made < 100


def check(policy: Allowed, got: LaunchPlan, most: LaunchPlan) -> None:
    """most: what the policy gives to whoever wishes nothing."""
    confine, widest = got.confine, most.confine
    assert (confine.user, confine.no_new_privs) == (widest.user, widest.no_new_privs)
    strict, relaxed = (policy.sandbox.policy.level == each for each in ("strict", "relaxed"))
    # In strict a narrower network has one more filter where sockets are handed over.
    assert confine.seccomp == widest.seccomp or "no-connect" in confine.seccomp or relaxed
    assert bool(confine.seccomp) is bool(widest.seccomp)
    assert (confine.holder is None) is (widest.holder is None) is not strict
    if confine.holder is not None and widest.holder is not None:
        assert (confine.holder.program, confine.holder.command) == ("/usr/bin/bwrap", ("cat",))
        more = sources(confine.holder.options) - sources(widest.holder.options)
        assert all(policy.is_engine(each) for each in more)
        assert written(confine.holder.options) == {policy.sandbox.workspace}
    for name in ("memory_bytes", "tasks", "cpu_percent"):
        assert 0 < getattr(confine.limits, name) <= getattr(widest.limits, name)
    assert set(confine.limits.cgroups) == set(widest.limits.cgroups)
    hard = {number: high for number, _soft, high in got.rlimits}
    assert all(hard[number] <= high for number, _soft, high in most.rlimits)
    assert hard.keys() >= {resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_CPU}
