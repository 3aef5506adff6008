"""Steps that are given up, and those that are not."""

from __future__ import annotations

import pytest

from mhnos_runtime.files.steps import GivenUp, Steps, to_the_end


def three(taken: list[int]) -> Steps[str]:
    for number in range(3):
        taken.append(number)
        yield
    return "done"


def driven(steps: Steps[str], give_up_after: int) -> str:
    for _ in range(give_up_after):
        next(steps)
    try:
        steps.throw(GivenUp())
        while True:
            next(steps)
    except StopIteration as end:
        return str(end.value)


def test_steps_are_given_up_where_they_are() -> None:
    taken = list[int]()
    with pytest.raises(GivenUp):
        driven(three(taken), 2)
    assert taken == [0, 1]


def test_what_has_begun_is_done_to_the_end() -> None:
    taken = list[int]()
    assert driven(to_the_end(three(taken)), 2) == "done"
    assert taken == [0, 1, 2]


def test_what_steps_raise_is_raised() -> None:
    def wrong() -> Steps[None]:
        yield
        raise ValueError("x")

    steps = to_the_end(wrong())
    next(steps)
    with pytest.raises(ValueError, match="x"):
        next(steps)
