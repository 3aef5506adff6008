"""Detach keys: their notation, and that no way of splitting what is typed hides them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.cli.keys import DetachKeys, parse_keys


@pytest.mark.parametrize(
    ("notation", "keys"),
    [
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_", b"\x00\x1b\x1c\x1d\x1e\x1f"),
        ("CTRL-A,d", b"\x01d"),
        ("", b""),
        ("none", b""),
    ],
)
def test_notation(notation: str, keys: bytes) -> None:
    assert parse_keys(notation) == keys


@pytest.mark.parametrize("notation", ["ctrl-", "ctrl-1", "ctrl-ab", "a,,b", "é", "alt-x"])
def test_what_is_not_a_key_is_named(notation: str) -> None:
    with pytest.raises(ValueError, match="is not a key"):
        parse_keys(notation)


@given(
    sequence=st.lists(st.sampled_from(b"ab"), min_size=1, max_size=5).map(bytes),
    typed=st.lists(st.sampled_from(b"abc"), max_size=40).map(bytes),
    cuts=st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=10),
)
def test_found_however_it_is_split_and_nothing_else_is_lost(
    sequence: bytes, typed: bytes, cuts: list[tuple[int, bool]]
) -> None:
    keys, passed, position = DetachKeys(sequence), b"", 0
    end = typed.find(sequence)
    for cut, release in [*sorted(cuts), (len(typed), False)]:
        more, detached = keys.feed(typed[position:cut])
        passed += more
        position = max(position, min(cut, len(typed)))
        if detached:
            assert 0 <= end <= position - len(sequence)
            assert typed[: end + len(sequence) - 1].startswith(passed)
            assert len(passed) >= end
            return
        assert passed + keys.held == typed[:position]
        if release:
            passed += keys.release()
            assert keys.held == b""
    assert end < 0


def test_no_sequence_finds_nothing() -> None:
    assert DetachKeys(b"").feed(b"\x10\x11") == (b"\x10\x11", False)


def test_a_first_key_that_was_let_through_still_counts() -> None:
    """With docker, Ctrl-P has to be pressed twice to reach the shell's history."""
    keys = DetachKeys(b"\x10\x11")
    assert keys.feed(b"a\x10") == (b"a", False)
    assert keys.release() == b"\x10"
    assert keys.feed(b"\x11") == (b"", True)


def test_the_next_key_lets_the_held_one_through_at_once() -> None:
    keys = DetachKeys(b"\x10\x11")
    assert keys.feed(b"\x10") == (b"", False)
    assert keys.feed(b"\x10") == (b"\x10", False)
    assert keys.feed(b"x") == (b"\x10x", False)
