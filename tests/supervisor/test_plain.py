"""Dataclasses as JSON and back, by their types."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mhnos_runtime.supervisor import plain


class Pair(NamedTuple):
    when: float
    what: tuple[int, ...]


@dataclass(frozen=True)
class Inner:
    path: Path


@dataclass
class Outer:
    maybe: Inner | None
    by_number: dict[int, str]
    pairs: list[Pair]
    row: tuple[str, Inner]
    rest: dict[str, Any] = field(default_factory=dict)


WHOLE = Outer(
    Inner(Path("/a")),
    {3: "b"},
    [Pair(1.5, (1, 2)), Pair(2.0, ())],
    ("x", Inner(Path("/c"))),
    {"any": [1, None, {"thing": "é"}]},
)


@pytest.mark.parametrize("value", [WHOLE, Outer(None, {}, [], ("", Inner(Path("."))))])
def test_it_comes_back_as_it_was_with_the_types_that_json_has_not(value: Outer) -> None:
    again = plain.decode(Outer, json.loads(json.dumps(plain.encode(value))))
    assert again == value
    assert all(type(each) is Pair for each in again.pairs)


@pytest.mark.parametrize(
    ("name", "value"), [("maybe", {}), ("maybe", {"path": "/a", "more": 1}), ("pairs", [[1.5]]), ("row", 5)]
)
def test_what_was_not_written_by_encode_is_an_error(name: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError, KeyError)):
        plain.decode(Outer, {**json.loads(json.dumps(plain.encode(WHOLE))), name: value})
