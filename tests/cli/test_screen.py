"""Questions are taken out of a replay wherever chunks end; everything else passes untouched."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.cli.screen import Modes, QuestionFilter

QUESTIONS = [
    b"\x1b[c",
    b"\x1b[>c",
    b"\x1b[0c",
    b"\x1b[6n",
    b"\x1b[?6n",
    b"\x1b[?2026$p",
    b"\x1b[18t",
    b"\x1b[>q",
    b"\x1b[?u",
    b"\x1b]11;?\x07",
    b"\x1b]4;1;?\x1b\\",
    b"\x1bP+q544e\x1b\\",
    b"\x1bP$qm\x1b\\",
    b"\x1bZ",
    b"\x05",
]
ANSWERS_NOTHING = [
    b"plain text\r\n",
    b"\x1b[31mred\x1b[0m",
    b"\x1b[2J\x1b[H",
    b"\x1b[?1049h",
    b"\x1b]0;title\x07",
    b"\x1b[8;24;80t",
    b"\x1b(B",
    "größe".encode(),
]


def filtered(pieces: list[bytes]) -> bytes:
    questions = QuestionFilter()
    return b"".join(questions.feed(piece) for piece in pieces) + questions.rest()


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_goes_however_it_is_split(question: bytes) -> None:
    whole = b"a" + question + b"b"
    for cut in range(len(whole) + 1):
        assert filtered([whole[:cut], whole[cut:]]) == b"ab"
    assert filtered([bytes([byte]) for byte in whole]) == b"ab"


@given(st.lists(st.sampled_from(ANSWERS_NOTHING), max_size=20), st.lists(st.integers(0, 200), max_size=8))
def test_everything_else_stays(parts: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(parts)
    edges = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    pieces = [whole[start:end] for start, end in pairwise(edges)]
    assert filtered(pieces) == whole


def test_what_never_ends_is_not_held_back_for_ever() -> None:
    questions = QuestionFilter()
    shown = b"".join(questions.feed(b"\x1bP+q" + b"0" * 200) for _ in range(10))
    assert len(shown) > 1500


def test_the_alternate_screen_is_left_only_where_it_was_entered() -> None:
    modes = Modes()
    assert b"\x1b[?1049l" not in modes.undo()
    modes.feed(b"text\x1b[?10")
    modes.feed(b"49h")
    assert modes.undo().startswith(b"\x1b[?1049l")
    modes.feed(b"\x1b[?1049l")
    assert b"\x1b[?1049l" not in modes.undo()
