"""What a server makes of the facts that an earlier one left: all of them, or that nothing is known."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from mhnos_runtime.process.facts import UNKNOWN, VERSION, Found, ProcessFacts, SpawnKey, Unreadable
from mhnos_runtime.process.ready import Port, Readiness
from tests.hostile.damage import FACTS


def stored(facts: ProcessFacts) -> Any:
    """As they come back from the supervisor."""
    return json.loads(json.dumps(facts.to_plain()))


def test_what_is_whole_stays_as_it_is() -> None:
    facts = ProcessFacts.decode(FACTS)
    assert stored(facts) == FACTS
    assert ProcessFacts.decode(stored(facts)) == facts
    with_key = msgspec.structs.replace(facts, key=SpawnKey("k", "digest"))
    assert ProcessFacts.decode(stored(with_key)) == with_key
    assert ProcessFacts.decode(stored(UNKNOWN)) == UNKNOWN


def test_fields_that_it_does_not_know_are_left_out() -> None:
    assert ProcessFacts.decode({**FACTS, "of_a_neighbour": 1}) == ProcessFacts.decode(FACTS)


def test_what_has_a_default_is_filled_in() -> None:
    """A port without a URL once ended each server that looked at it."""
    ports = [{"name": "http", "port": 80, "address": ""}]
    assert ProcessFacts.decode({**FACTS, "ports": ports}).ports == (Port("http", 80, "", ""),)


@pytest.mark.parametrize(
    "found",
    [Found(), Found(ready=Readiness("failed", "why")), Found(ports=(Port("a", 1, ""),)), Found(ports=())],
)
def test_what_was_found_replaces_what_was_known_and_nothing_else(found: Found) -> None:
    facts = ProcessFacts.decode(FACTS)
    changed = facts.with_found(found)
    # The supervisor does the same without reading it.
    assert stored(changed) == {**FACTS, **json.loads(json.dumps(found.to_plain()))}
    assert changed.ready is (facts.ready if found.ready is msgspec.UNSET else found.ready)


@pytest.mark.parametrize("version", [None, 0, VERSION + 1, str(VERSION), [VERSION] * 1000])
def test_another_version_is_named(version: object) -> None:
    with pytest.raises(Unreadable, match=f"this server reads {VERSION}"):
        ProcessFacts.decode({**FACTS, "version": version})


@pytest.mark.parametrize(
    "change",
    [
        *({"kind": None}, {"args": [1]}, {"linger_ms": -1}, {"linger_ms": 1e300}, {"name": "\ud800"}),
        *({"watch": None}, {"ready": None}, {"ready": {"state": "x", "reason": ""}}, {"ports": None}),
        *({"watch": {**FACTS["watch"], "line": "("}}, {"isolation": {}}, {"secrets": {"token": 1}}),
        # Once a timer and a connection that raised in the next server, after it had taken the process over.
        *({"watch": {**FACTS["watch"], "timeout_ms": each}} for each in (-1, 1 << 31, 10**400)),
        *({"watch": {**FACTS["watch"], "port": each}} for each in (-1, 65536, 10**30)),
        *({"ports": [{"name": "http", "port": each, "address": ""}]} for each in (0, 65536, 10**30)),
        *({"isolation": {**FACTS["isolation"], "uid": "root"}}, {"key": "k"}, {"key": {"name": "k"}}),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(change: dict[str, Any]) -> None:
    with pytest.raises(Unreadable) as raised:
        ProcessFacts.decode({**FACTS, **change})
    assert 0 < len(str(raised.value)) <= 200
    assert "\n" not in str(raised.value)


def test_what_is_missing_is_too() -> None:
    for name in FACTS:
        with pytest.raises(Unreadable):
            ProcessFacts.decode({key: value for key, value in FACTS.items() if key != name})
