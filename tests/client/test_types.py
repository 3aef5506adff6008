"""Values in a caller's hand: where the next byte is; they cannot be changed."""

from __future__ import annotations

import dataclasses

import pytest

from mhnos_runtime.client.types import ExitInfo, Gap, InputUncertain, Output, PtySize


def test_the_next_byte_stands_behind_the_last() -> None:
    assert Output("stdout", 5, b"abc").next == 8
    assert Output("stderr", 5, b"").next == 5


@pytest.mark.parametrize(
    "value",
    [
        Output("stdout", 0, b""),
        Gap(0, 1),
        PtySize(),
        InputUncertain(1, 0, 1, b"x"),
        ExitInfo(0, None, "exit"),
    ],
)
def test_a_value_is_the_same_for_all_who_hold_it(value: object) -> None:
    field = dataclasses.fields(value)[0].name  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, field, None)
