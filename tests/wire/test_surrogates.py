"""Halves of surrogate pairs, as JavaScript cuts them: found, hidden from a strict decoder, and put back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.wire import surrogates

#: Texts with halves and pairs, escapes that look like them, and backslashes in front of them.
PIECES = st.sampled_from(
    ["\\ud83d", "\\ude00", "\\uD83D", "\\uDE00", "\\\\", "\\\\ud83d", '\\"', "\\u0041", "\\n", "a", "é", "u"]
)
LITERALS = st.lists(PIECES, max_size=12).map(lambda pieces: f'"{"".join(pieces)}"'.encode())


@given(LITERALS)
def test_a_mark_changes_no_length_and_is_undone(literal: bytes) -> None:
    marked = surrogates.mark(literal)
    assert len(marked) == len(literal)
    assert surrogates.unmark(marked) == literal


@given(LITERALS)
def test_what_is_replaced_are_the_halves_and_nothing_else(literal: bytes) -> None:
    whole = json.loads(literal).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert json.loads(surrogates.replace(surrogates.mark(literal))) == whole
    assert surrogates.to_utf8(surrogates.text_of(literal)) == whole.encode()


def test_so_many_halves_and_no_more_are_looked_for() -> None:
    halves = b'"' + b"\\ud83d" * surrogates.MAX_HALVES + b'"'
    assert surrogates.unmark(surrogates.mark(halves)) == halves
    with pytest.raises(ValueError, match="more than 10000 halves"):
        surrogates.mark(halves[:-1] + b'\\ud83d"')


def test_pairs_cost_none_of_them() -> None:
    pairs = b'"' + b"\\ud83d\\ude00" * (surrogates.MAX_HALVES + 1) + b'"'
    assert surrogates.mark(pairs) == pairs


@pytest.mark.parametrize(
    ("code", "high"), [(0xD7FF, False), (0xD800, True), (0xDBFF, True), (0xDC00, False), (0x61, False)]
)
def test_which_half_comes_first(code: int, high: bool) -> None:
    assert surrogates.is_high(chr(code)) is high
    assert not surrogates.is_high("")
