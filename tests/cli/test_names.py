"""Names on a terminal: nothing drives it, and what is shown can be typed into a shell again."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.cli.names import columns, raw, shown

NAMES = [
    "a",
    "ä b",
    "a'b",
    "a\nb",
    "\x1b[2Jx",
    "\x9b31m",
    "\u202ereversed",
    "-rf",
    "$(x)",
    "a\\nb",
    "",
    "\U000e0001",
]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_shown_is_the_name_for_bash(name: str) -> None:
    script = f"printf '%s\\0' {shown(name)}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"})
    assert done.stdout == name.encode() + b"\0"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_nothing_that_is_shown_drives_a_terminal(name: str) -> None:
    assert shown(name).isprintable()


def test_what_needs_no_quotes_has_none() -> None:
    for name in ("main.py", "a-b_c", "größe", "a+b@c:d,e"):
        assert shown(name) == name


def test_for_programs_names_are_as_they_are() -> None:
    assert raw("a\nb\x1b") == "a\nb\x1b"
    assert raw("\ud800") == "\\ud800"


@given(st.lists(st.text("abc", min_size=1, max_size=12), max_size=40), st.integers(1, 60))
def test_columns_hold_every_name_once_read_downwards_and_fit(names: list[str], width: int) -> None:
    lines = columns(names, width, names.__getitem__)
    cells = [line.split() for line in lines]
    down = [row[at] for at in range(len(cells[0]) if cells else 0) for row in cells if at < len(row)]
    assert down == names
    longest = max(map(len, names), default=0)
    assert all(len(line) <= max(width, longest) for line in lines)


def test_as_few_lines_as_fit() -> None:
    assert columns(["aaa", "bb", "c", "dd"], 10, ["aaa", "bb", "c", "dd"].__getitem__) == [
        "aaa  c",
        "bb   dd",
    ]
    assert columns(["a", "b"], 80, ["a", "b"].__getitem__) == ["a  b"]
