"""The last lines of a stream, against splitting it as a whole; time stamps at line beginnings."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.cli.lines import LONGEST_LINE_BYTES, LastLines, Matching, Stamper
from mhnos_runtime.client import Gap, Output


def outputs(pieces: list[bytes]) -> list[Output]:
    offset, items = 0, []
    for piece in pieces:
        items.append(Output("stdout", offset, piece))
        offset += len(piece)
    return items


@given(st.lists(st.sampled_from([b"a", b"\n", b"bc\n", b"\n\n", b"d\ne"]), max_size=30), st.integers(0, 8))
def test_the_last_lines_are_those_of_the_whole(pieces: list[bytes], count: int) -> None:
    last = LastLines(count)
    for item in outputs(pieces):
        last.feed(item)
    whole = b"".join(pieces)
    lines = [line + b"\n" for line in whole.split(b"\n")[:-1]]
    lines += [rest] if (rest := whole.rpartition(b"\n")[2]) else []
    got = b"".join(item.data for item in last.items() if isinstance(item, Output))
    assert got == b"".join(lines[-count:] if count else [])


def test_a_gap_inside_the_last_lines_is_kept() -> None:
    last = LastLines(2)
    items: list[Output | Gap] = [Output("stdout", 0, b"a\nb\n"), Gap(4, 9), Output("stdout", 9, b"c\n")]
    for item in items:
        last.feed(item)
    assert last.items() == [Output("stdout", 2, b"b\n"), Gap(4, 9), Output("stdout", 9, b"c\n")]


def test_matching_lines_are_passed_on_whole_and_the_streams_apart() -> None:
    matching = Matching(re.compile("b|é$"))
    items: list[Output | Gap] = [
        Output("stdout", 0, b"a\nb1\nb"),
        Output("stderr", 6, "é\r\nx".encode()),
        Output("stdout", 11, b"2\nc\nb"),
        Gap(16, 20),
        Output("stderr", 20, b"b"),
    ]
    found = [each for item in items for each in matching.feed(item)]
    assert [*found, *matching.rest()] == [
        Output("stdout", 2, b"b1\n"),
        Output("stderr", 6, "é\r\n".encode()),
        Output("stdout", 5, b"b2\n"),
        Output("stdout", 15, b"b"),
        Gap(16, 20),
        Output("stderr", 20, b"b"),
    ]


@given(st.lists(st.sampled_from([b"a", b"\n", b"bc\n", b"\n\n", b"d\ne"]), max_size=30))
def test_what_matches_everything_is_everything(pieces: list[bytes]) -> None:
    matching = Matching(re.compile(""))
    found = [each for item in outputs(pieces) for each in matching.feed(item)] + matching.rest()
    assert b"".join(each.data for each in found if isinstance(each, Output)) == b"".join(pieces)


def test_a_line_without_an_end_is_not_kept_for_ever() -> None:
    matching = Matching(re.compile("x"))
    found = [each for item in outputs([b"x" * 65536] * 40) for each in matching.feed(item)]
    assert [len(each.data) for each in found if isinstance(each, Output)] == [LONGEST_LINE_BYTES] * 2


def test_lines_carry_the_time_at_which_they_began() -> None:
    stamper = Stamper([(0, 0), (4, 1500)], live_from=8, now_ms=lambda: 2000)
    assert (
        stamper.feed(Output("stdout", 0, b"a\nbc"))
        == b"1970-01-01T00:00:00.000Z a\n1970-01-01T00:00:00.000Z bc"
    )
    assert stamper.feed(Output("stdout", 4, b"d\nef")) == b"d\n1970-01-01T00:00:01.500Z ef"
    assert stamper.feed(Output("stderr", 8, b"e\n")) == b"1970-01-01T00:00:02.000Z e\n"
    assert stamper.feed(Output("stdout", 10, b"\n")) == b"\n"
