"""What a server makes of what an earlier one kept: all of it, with what it lacks, or nothing."""

from __future__ import annotations

from typing import Any

import pytest

from mhnos_runtime.server import kept
from tests.hostile.damage import META


def test_what_is_whole_stays_as_it_is() -> None:
    assert kept.usable({**META, "of_a_neighbour": 1}) == ({**META, "of_a_neighbour": 1}, "")


def test_what_has_a_default_is_filled_in() -> None:
    """A port without a URL once ended each server that looked at it."""
    ports = [{"name": "http", "port": 80, "address": ""}]
    meta, why = kept.usable({**META, "ports": ports})
    assert (meta["ports"], why) == ([{**ports[0], "url": ""}], "")


@pytest.mark.parametrize(
    "change",
    [
        *({"kind": None}, {"args": [1]}, {"linger_ms": -1}, {"linger_ms": 1e300}, {"name": "\ud800"}),
        *({"watch": None}, {"ready": None}, {"ready": {"state": "x", "reason": ""}}, {"ports": None}),
        *({"watch": {**META["watch"], "line": "("}}, {"isolation": {}}, {"secrets": {"token": 1}}),
        {"isolation": {**META["isolation"], "uid": "root"}},
    ],
)
def test_what_makes_no_sense_leaves_a_process_that_can_be_shown_and_ended(change: dict[str, Any]) -> None:
    meta, why = kept.usable({**META, **change})
    assert meta == kept.UNREADABLE
    assert why
    assert "\n" not in why


def test_what_is_missing_does_too() -> None:
    for name in META:
        assert kept.usable({key: value for key, value in META.items() if key != name})[1]
