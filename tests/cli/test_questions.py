"""Questions are taken out of a replay wherever chunks end; everything else passes untouched."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mhnos_runtime.cli.questions import LONGEST_HELD_BYTES, QuestionFilter
from tests.cli.asking import Terminal

QUESTIONS = [
    *(b"\x1b[c", b"\x1b[>c", b"\x1b[0c", b"\x1b[=c", b"\x1bZ", b"\x05"),
    *(b"\x1b[5n", b"\x1b[6n", b"\x1b[?6n", b"\x1b[?996n", b"\x1b[006n"),
    *(b"\x1b[?2026$p", b"\x1b[4$p", b"\x1b[>q", b"\x1b[?u", b"\x1b[?4m", b"\x1b[x", b"\x1b[1;1;1;1;2;2*y"),
    *(b"\x1b[14t", b"\x1b[14;2t", b"\x1b[018t", b"\x1b[21t", b"\x1b[11t", b"\x1b[?2048h", b"\x1b[?1;1;0S"),
    *(b"\x1b]11;?\x07", b"\x1b]10;?;?\x1b\\", b"\x1b]4;1;?\x1b\\", b"\x1b]52;c;?\x07", b"\x1b]12;?\xc2\x9c"),
    *(b"\x1b]4;1;rgb:0/0/0;2;?\x07", b"\x1b]21;foreground=?\x1b\\", b"\x1b]50;?\x07", b"\x1b]60\x07"),
    *(b"\x1b]1337;ReportCellSize\x07", b"\x1b]99;i=1:p=?;\x1b\\"),
    *(b"\x1bP+q544e\x1b\\", b"\x1bP$qm\x1b\\", b"\x1bP+Qfont\x1b\\"),
    # A terminal passes over the controls in it.
    *(b"\x1bP$\x00qm\x1b\\", b"\x1b]\x0011;?\x1b\\", b"\x1b]11;\x00?\x1b\\", b"\x1b_\x7fGa=q;\x1b\\"),
    *(b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\", b"\x1b_Ga=T,f=100;AAAA\x1b\\"),
    *("\x9b6n".encode(), b"\xc2\x9d11;?\xc2\x9c", b"\xc2\x90$qm\xc2\x9c", b"\xc2\x9a"),
    *(b"\x9b6n", b"\x9d11;?\x07", b"\x90$qm\x9c", b"\x9a"),
    # Controls inside of a sequence are carried out, and the sequence goes on.
    *(b"\x1b[\n6\r\nn", b"\x1b\x00[6n", b"\x1b[6\x05n", b"\x1b[\x7f6n"),
    b"\x1b[" + b"0" * 3000 + b"6n",
]
ANSWERS_NOTHING = [
    b"plain text\r\n",
    b"\x1b[31mred\x1b[0m",
    b"\x1b[38:2::1:2:3m",
    b"\x1b[2J\x1b[H",
    b"\x1b[?1049h\x1b[?25l\x1b[?1049l",
    b"\x1b]0;title?\x07\x1b]2;what;?\x1b\\",
    b"\x1b]8;;https://example.org/?a=?\x1b\\link\x1b]8;;\x1b\\",
    b"\x1b]11;rgb:ff/ff/ff\x07\x1b]52;c;aGVsbG8/\x07",
    b"\x1b[8;24;80t\x1b[22;0t",
    b"\x1b(B\x1b)0\x1b7\x1b8\x1bM\x1b=\x1b>\x1b#8",
    b"\x1b[4 q\x1b[>4;2m\x1b[!p\x1b[1;2r\x1b[s\x1b[u\x1b[>1u\x1b[<u",
    b"\x1bPq#0;2;0;0;0#0~~@@vv$-\x1b\\",
    b"\x1b_Ga=T,q=2,f=100;AAAA\x1b\\",
    "größe 雛 \u2713 \U0001f600".encode(),
    b"\xff\xfe binary \xe9",
    b"\xc2\x85",
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


@pytest.mark.parametrize("question", [b"\x1b[6n", b"\x1b]11;?\x07", b"\x1bZ", b"\x9b6n", b"\x1bP$qm\x1b\\"])
@pytest.mark.parametrize(
    "before", [b"\x1b[", b"\x1b", b"\x1b[6", b"\x1b]0;t", b"\x1bP$q", b"\x9b", b"\xc2", b"\xe2\x82"]
)
@pytest.mark.parametrize("after", [b"6n", b"n", b"\\", b"[6n", b"\x07", b"\x1b\\", b"\x18[6n", b"\xc2"])
def test_what_a_question_leaves_makes_no_other(before: bytes, question: bytes, after: bytes) -> None:
    shown = filtered([before + question + after])
    assert filtered([shown]) == shown
    assert b"\x1b[6n" not in shown
    assert b"\x9b6n" not in shown.replace("\u209b".encode(), b"")


def test_what_tmux_or_screen_would_pass_on_goes() -> None:
    for question in (b"\x1bPtmux;\x1b\x1b[6n\x1b\\", b"\x1bP\x1b[6n\x1b\\"):
        assert filtered([question]).replace(b"\x1b\\", b"") == b""


@given(
    st.lists(
        st.sampled_from([*QUESTIONS[:-1], *ANSWERS_NOTHING, b"\x1b", b"[", b"6", b"n", b"\x9b"]), max_size=12
    ),
    st.data(),
)
def test_chunks_make_no_difference_and_what_is_left_asks_nothing(
    parts: list[bytes], data: st.DataObject
) -> None:
    whole = b"".join(parts)
    edges = [0, *sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6))), len(whole)]
    questions = QuestionFilter()
    shown = b"".join(questions.feed(whole[start:end]) for start, end in pairwise(edges))
    assert shown == QuestionFilter().feed(whole)
    assert filtered([shown]) == shown


def test_a_mouse_is_for_a_process_that_goes_on_only() -> None:
    modes = b"\x1b[?1049;1006;1000h"
    assert QuestionFilter(live=True).feed(modes) == modes
    assert QuestionFilter().feed(modes + b"\x1b[?1004h\x1b[?1000l") == b"\x1b[?1049h\x1b[?1000l"
    assert QuestionFilter(live=True).feed(b"\x1b[?2048h") == b""


@pytest.mark.parametrize("head", [b"\x1bPq", b"\x1b]1337;File=inline=1:", b"\x1b_Gq=2;"])
def test_a_picture_passes_in_parts(head: bytes) -> None:
    picture = [head, *[b"x" * 3000] * 5, b"y" * 2999 + b"\x1b", b"\\", b"after"]
    assert filtered(picture) == b"".join(picture)
    broken = [head, *[b"x" * 3000] * 5, b"\x1b[6n", b"after\x1b[c"]
    assert filtered(broken).endswith(b"xafter")


@pytest.mark.parametrize(
    "head", [b"\x1bP+q", b"\x1b]4;1;", b"\x1b_Ga=q;", b"\x1b[", b"\x1bP" + b"\0" * 9000 + b"$q"]
)
def test_what_may_be_a_question_for_very_long_is_not_shown_and_not_kept(head: bytes) -> None:
    questions = QuestionFilter()
    shown = b"".join(questions.feed(piece) for piece in [head, *[b"0" * 3000] * 10])
    assert len(questions.rest()) <= LONGEST_HELD_BYTES
    assert b"\x1b" not in shown
    assert questions.feed(b";?\x1b\\\x1b[6nend").endswith(b"end")


@pytest.mark.parametrize(
    "question", [b"\x1b[6n", b"\x1b]11;?\x07", b"\x1bP$qm\x1b\\", b"\x1bZ", b"\x05", b"\xc2\x9b6n"]
)
def test_the_terminal_of_these_tests_answers(question: bytes) -> None:
    terminal = Terminal(lenient=False)
    terminal.show(question)
    assert len(terminal.asked) == 1


_PARTS = [
    *(
        bytes([byte])
        for byte in b"\x1b\x1b\x1b[[]P_6n;?$qp>uct18Zm\\x \x07\x18\x05\x00\n\xc2\x9b\x9c\x9d\x90\xe2\x82\xff"
    ),
    *(
        b"\x1b[",
        b"\x1b]11;",
        b"\x1bP$q",
        b"\x1bP+q",
        b"\x1b\\",
        b"6n",
        b"\xc2\x9b",
        b"\xc2\x9d",
        b"\xc2\x9c",
        "\u00e9".encode(),
    ),
]


@given(st.lists(st.sampled_from(_PARTS), max_size=24), st.booleans(), st.integers(1, 8))
@settings(max_examples=1000, deadline=None)
def test_no_terminal_answers_what_is_left(parts: list[bytes], lenient: bool, size: int) -> None:
    """Whatever the process writes, in whatever pieces, and whatever the prompt writes after it."""
    whole = b"".join(parts)
    questions, terminal = QuestionFilter(), Terminal(lenient=lenient)
    for start in range(0, len(whole), size):
        terminal.show(questions.feed(whole[start : start + size]))
    terminal.show(b"\x1b[0m$ ")
    assert terminal.asked == []
