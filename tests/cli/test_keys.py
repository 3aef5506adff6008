"""Detach keys: their notation, and that no way of splitting what is typed hides them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.cli.keys import DEFAULT_DETACH_KEYS, DetachKeys, parse_keys


@pytest.mark.parametrize(
    ("notation", "keys"),
    [
        (DEFAULT_DETACH_KEYS, b"\x10\x11"),
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


def feed(keys: DetachKeys, pieces: list[bytes]) -> tuple[bytes, bool]:
    passed = b""
    for piece in pieces:
        more, detached = keys.feed(piece)
        passed += more
        if detached:
            return passed, True
    return passed, False


@given(
    sequence=st.lists(st.sampled_from(b"ab"), min_size=1, max_size=5).map(bytes),
    typed=st.lists(st.sampled_from(b"abc"), max_size=40).map(bytes),
    cuts=st.lists(st.integers(0, 40), max_size=10),
)
def test_found_however_it_is_split_and_nothing_else_is_lost(
    sequence: bytes, typed: bytes, cuts: list[int]
) -> None:
    edges = [0, *sorted(min(cut, len(typed)) for cut in cuts), len(typed)]
    pieces = [typed[start:end] for start, end in pairwise(edges)]
    passed, detached = feed(DetachKeys(sequence), pieces)
    end = typed.find(sequence)
    assert detached == (end >= 0)
    assert passed == (typed[: end + len(sequence) - 1] if end >= 0 else typed)


def test_no_sequence_finds_nothing() -> None:
    assert DetachKeys(b"").feed(b"\x10\x11") == (b"\x10\x11", False)


def test_the_first_key_is_not_held_back() -> None:
    """With docker, Ctrl-P has to be pressed twice to reach the shell's history."""
    assert DetachKeys(b"\x10\x11").feed(b"\x10") == (b"\x10", False)
