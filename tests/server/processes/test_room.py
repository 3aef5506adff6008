"""For whom the last descriptors are kept, as arithmetic. tests/server/test_room.py has a whole server."""

from __future__ import annotations

import resource

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mhnos_runtime.errors import LimitReached
from mhnos_runtime.server.processes import room
from mhnos_runtime.server.processes.room import HEALTH_DESCRIPTORS, KEPT_STARTS, START_DESCRIPTORS

FOR_STARTS = HEALTH_DESCRIPTORS + KEPT_STARTS * START_DESCRIPTORS


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    state = {"free": 0, "limit": 0}
    monkeypatch.setattr(room, "free_descriptors", lambda: state["free"])
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (state["limit"], state["limit"]))
    return state


def may_start(starting: int) -> bool:
    try:
        room.check_start(starting)
    except LimitReached:
        return False
    return True


@pytest.mark.parametrize(
    ("limit", "free", "client", "start"),
    [
        (1 << 20, FOR_STARTS + 1, True, True),
        (1 << 20, FOR_STARTS, False, True),
        (1 << 20, HEALTH_DESCRIPTORS + START_DESCRIPTORS, False, True),
        (1 << 20, HEALTH_DESCRIPTORS + START_DESCRIPTORS - 1, False, False),
        (256, 129, True, True),
        (256, 128, False, True),
        (256, 64 + START_DESCRIPTORS, False, True),
        (256, 64 + START_DESCRIPTORS - 1, False, False),
        (256, 0, False, False),
    ],
)
def test_who_gets_the_last_ones(
    machine: dict[str, int], limit: int, free: int, client: bool, start: bool
) -> None:
    machine.update(limit=limit, free=free)
    assert (room.for_client(), may_start(1)) == (client, start)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(64, 1 << 20), st.integers(0, 2000), st.integers(1, 20))
def test_who_is_let_in_leaves_room_for_a_start(
    machine: dict[str, int], limit: int, free: int, starting: int
) -> None:
    machine.update(limit=limit, free=free)
    if room.for_client():
        assert may_start(1)
    if may_start(starting + 1):
        assert may_start(starting), "each one under way takes its share"


def test_a_start_without_room_can_succeed_later(machine: dict[str, int]) -> None:
    machine.update(limit=1024, free=0)
    with pytest.raises(LimitReached) as refused:
        room.check_start(1)
    assert (refused.value.code, refused.value.retry) == ("start-failed", True)


def test_the_real_numbers_can_be_had() -> None:
    assert room.for_client()
    room.check_start(1)
