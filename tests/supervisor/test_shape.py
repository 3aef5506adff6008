"""Whether JSON has the form of a dataclass: each type of field, with what fits it and what does not."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import pytest

from mhnos_runtime.bounds import FACTS_DEPTH, MAX_INTEGER
from mhnos_runtime.supervisor.shape import MAX_ITEMS, BadShape, checker


@dataclass
class Inner:
    name: str = "é"


@dataclass
class Outer:
    number: int = 1
    small: int = 3
    text: str = "x"
    flag: bool = True
    maybe: int | None = None
    inner: Inner = field(default_factory=Inner)
    texts: dict[str, str] = field(default_factory=lambda: {"a": "b"})
    facts: dict[str, Any] = field(default_factory=lambda: {"a": [{}, 1.5, None]})
    many: tuple[str, ...] = ("a", "b")
    row: tuple[int, str] = (1, "a")
    left_out: int = 0


CHECK = checker(Outer, {"Outer.small": (2, 4)}, without=("left_out",))


def data(**changed: Any) -> dict[str, Any]:
    whole = {**asdict(Outer()), **changed}
    del whole["left_out"]
    return whole


def nested(levels: int) -> dict[str, Any]:
    return {"a": nested(levels - 1)} if levels else {}


FITS: dict[str, list[Any]] = {
    "number": [0, MAX_INTEGER],
    "small": [2, 4],
    "maybe": [None, 5],
    "many": [[], ["x"] * MAX_ITEMS],
    "texts": [{}],
    "facts": [{}, nested(FACTS_DEPTH - 1)],
}
DOES_NOT: dict[str, list[Any]] = {
    "number": [-1, MAX_INTEGER + 1, 1.0, True, "1", None],
    "small": [1, 5],
    "text": [1, "a\0", "\ud800", None],
    "flag": [1, None],
    "maybe": ["x", -1],
    "inner": [None, {}, {"name": 1}, {"name": "a", "more": 1}],
    "texts": [[], {"a": 1}, {"a": "\0"}, {"\0": "a"}],
    "facts": [[], None, nested(FACTS_DEPTH)],
    "many": ["ab", {}, [1], ["x"] * (MAX_ITEMS + 1)],
    "row": [[], [1], [1, "a", 2], ["a", 1], "1a"],
}


@pytest.mark.parametrize(("name", "value"), [(name, each) for name in FITS for each in FITS[name]])
def test_what_fits_passes(name: str, value: Any) -> None:
    CHECK(data(**{name: value}), "it")


@pytest.mark.parametrize(("name", "value"), [(name, each) for name in DOES_NOT for each in DOES_NOT[name]])
def test_what_does_not_is_named(name: str, value: Any) -> None:
    with pytest.raises(BadShape, match=rf"^it\.{name}"):
        CHECK(data(**{name: value}), "it")


@pytest.mark.parametrize("whole", [None, [], {}, {**data(), "left_out": 0}, {**data(), "x" * 1000: 1}])
def test_a_field_too_many_or_too_few_is_named_and_cut(whole: Any) -> None:
    with pytest.raises(BadShape, match=r"^it[ :]") as raised:
        CHECK(whole, "it")
    assert len(str(raised.value)) < 100


def test_a_type_that_nobody_checks_is_found_when_the_check_is_made() -> None:
    @dataclass
    class Odd:
        number: float = 0.0

    with pytest.raises(TypeError, match="float"):
        checker(Odd, {})
