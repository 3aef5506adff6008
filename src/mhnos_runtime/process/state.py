"""The life of a process as one table. Every cell is either the next state or a refusal."""

from __future__ import annotations

from enum import StrEnum

from mhnos_runtime.errors import MhnosError


class State(StrEnum):
    """The values stand in messages."""

    RUNNING = "running"
    ENDING = "ending"
    EXITED = "exited"


class Event(StrEnum):
    END_REQUESTED = "an ending signal"
    SIGNALLED = "a signal"
    INPUT = "input"
    RESIZED = "a new size"
    ENDED = "its end"


class NotNow(MhnosError):
    """The process is in a state in which this cannot happen."""

    code = "input-closed"


#: What happens in each state; None: refused with NotNow. Late requests to an ended process are not errors of
#: the client, which may not have seen its end yet, so only input, which would be lost, is refused.
TABLE: dict[State, dict[Event, State | None]] = {
    State.RUNNING: {
        Event.END_REQUESTED: State.ENDING,
        Event.SIGNALLED: State.RUNNING,
        Event.INPUT: State.RUNNING,
        Event.RESIZED: State.RUNNING,
        Event.ENDED: State.EXITED,
    },
    State.ENDING: {
        Event.END_REQUESTED: State.ENDING,
        Event.SIGNALLED: State.ENDING,
        Event.INPUT: State.ENDING,
        Event.RESIZED: State.ENDING,
        Event.ENDED: State.EXITED,
    },
    State.EXITED: {
        Event.END_REQUESTED: State.EXITED,
        Event.SIGNALLED: State.EXITED,
        Event.INPUT: None,
        Event.RESIZED: State.EXITED,
        Event.ENDED: State.EXITED,
    },
}


def after(state: State, event: Event) -> State:
    """The state that follows. Raises NotNow where the table has none."""
    following = TABLE[state][event]
    if following is None:
        raise NotNow(f"the process is {state.value} and takes no {event.value}")
    return following
