"""Every cell of the state table."""

from __future__ import annotations

import pytest

from mhnos_runtime.process.state import TABLE, Event, NotNow, State, after

RUNNING, ENDING, EXITED = State.RUNNING, State.ENDING, State.EXITED

EXPECTED: dict[tuple[State, Event], State | None] = {
    (RUNNING, Event.END_REQUESTED): ENDING,
    (RUNNING, Event.SIGNALLED): RUNNING,
    (RUNNING, Event.INPUT): RUNNING,
    (RUNNING, Event.RESIZED): RUNNING,
    (RUNNING, Event.ENDED): EXITED,
    (ENDING, Event.END_REQUESTED): ENDING,
    (ENDING, Event.SIGNALLED): ENDING,
    (ENDING, Event.INPUT): ENDING,
    (ENDING, Event.RESIZED): ENDING,
    (ENDING, Event.ENDED): EXITED,
    (EXITED, Event.END_REQUESTED): EXITED,
    (EXITED, Event.SIGNALLED): EXITED,
    (EXITED, Event.INPUT): None,
    (EXITED, Event.RESIZED): EXITED,
    (EXITED, Event.ENDED): EXITED,
}


def test_the_table_is_whole() -> None:
    assert {(state, event) for state in TABLE for event in TABLE[state]} == set(EXPECTED)
    assert {(state, event) for state in State for event in Event} == set(EXPECTED)


@pytest.mark.parametrize(("state", "event"), list(EXPECTED))
def test_each_cell(state: State, event: Event) -> None:
    following = EXPECTED[state, event]
    if following is None:
        with pytest.raises(NotNow, match=f"{state.value} and takes no {event.value}") as refused:
            after(state, event)
        assert refused.value.code == "input-closed"
    else:
        assert after(state, event) is following


def test_the_values_are_what_stands_in_messages() -> None:
    assert [state.value for state in State] == ["running", "ending", "exited"]


def test_nothing_leads_back() -> None:
    order = list(State)
    for (state, _event), following in EXPECTED.items():
        assert following is None or order.index(following) >= order.index(state)
