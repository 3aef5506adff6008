"""Lines of a file that match, in whichever blocks it comes."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.files.lines import LINE_BYTES, LINES, OVERLAP_BYTES, FileLines, FoundLine, Told
from mhnos_runtime.patterns import SHOWN_BYTES, compiled


def pattern(text: str, **options: bool) -> Any:
    return compiled(text, **{"fixed": False, "ignore_case": False, **options})


def found(text: str, *blocks: bytes, told: Told = LINES, **options: bool) -> list[FoundLine]:
    lines = FileLines(pattern(text, **options), told)
    given = [line for block in blocks for line in lines.feed(block)] + list(lines.end())
    return [line for line in given if line is not None]


def test_number_column_and_text() -> None:
    assert found("t", b"one\ntwo\n\nthr", b"ee\nnot", b" this") == [
        FoundLine(2, 0, "two"),
        FoundLine(4, 0, "three"),
        FoundLine(5, 2, "not this"),
    ]
    assert found("b", "äb\n".encode()) == [FoundLine(1, 2, "äb")]


def test_lines_of_windows() -> None:
    assert found("^b?$", b"a\r\n\r\nb\r", b"\nb") == [
        FoundLine(2, 0, ""),
        FoundLine(3, 0, "b"),
        FoundLine(4, 0, "b"),
    ]


def test_a_byte_order_mark_is_no_text() -> None:
    assert found("^a", b"\xef\xbb\xbfa\n\xef\xbb\xbfa\n") == [FoundLine(1, 0, "a")]


@given(
    st.lists(st.sampled_from([b"a", b"b", b"\n", b"\r\n", b"ab\nb", b"\r", b"\xc3", b"\n\n"]), max_size=30),
    st.sampled_from(["a", "b$", "^b", "^$", "ab?", ".", "b\\s*a"]),
)
def test_blocks_make_no_difference(blocks: list[bytes], text: str) -> None:
    whole = b"".join(blocks)
    lines = whole.split(b"\n")[: -1 if whole.endswith(b"\n") else None] if whole else []
    made = pattern(text)
    wanted = []
    for number, line in enumerate(lines, 1):
        bare = line.removesuffix(b"\r") if number < len(lines) or whole.endswith(b"\n") else line
        if match := made.search(bare):
            wanted.append(FoundLine(number, match.start(), bare.decode("utf-8", "replace")))
    assert found(text, *blocks) == found(text, whole) == wanted


@pytest.mark.parametrize("size", [1000, LINE_BYTES, 3 * LINE_BYTES])
@pytest.mark.parametrize("block", [1000, 4096, LINE_BYTES])
def test_a_long_line_is_told_once_wherever_it_matches(size: int, block: int) -> None:
    for data, column in (
        (b"needle" + b"x" * size + b"needle", 0),
        (b"x" * size + b"needle" + b"y" * size + b"needle", size),
        (b"x" * size + b"needle", size),
    ):
        whole = b"first\n" + data + b"\nlast needle\n"
        [one, last] = found("needle", *(whole[at : at + block] for at in range(0, len(whole), block)))
        assert (one.number, one.column, last) == (2, column, FoundLine(3, 5, "last needle"))
        assert "needle" in one.text
        assert len(one.text) <= SHOWN_BYTES + 2


def test_a_match_is_found_at_every_border_of_two_pieces() -> None:
    for before in range(LINE_BYTES - 8, LINE_BYTES + 2):
        data = b"x" * before + b"needle" + b"y" * LINE_BYTES
        assert [line.column for line in found("needle", data[:LINE_BYTES], data[LINE_BYTES:])] == [before]


AROUND = [b"a\n", b"b\n", b"c\r\n", b"\n", b"a", b"b", b"xx\nx\n"]


@given(st.lists(st.sampled_from(AROUND), max_size=30), st.integers(0, 3), st.integers(0, 3))
def test_lines_around_those_that_match_are_told_once_in_order(
    blocks: list[bytes], before: int, after: int
) -> None:
    whole = b"".join(blocks)
    lines = [line.rstrip(b"\r") for line in whole.removesuffix(b"\n").split(b"\n")] if whole else []
    match = [number for number, line in enumerate(lines) if b"a" in line]
    wanted = [
        (number + 1, number not in match, line.decode())
        for number, line in enumerate(lines)
        if any(each - before <= number <= each + after for each in match)
    ]
    told = found("a", *blocks, told=Told(before=before, after=after))
    assert [(line.number, line.column is None, line.text) for line in told] == wanted


def test_a_long_line_that_stands_around_another_is_cut() -> None:
    long = b"x" * 3 * LINE_BYTES + b"end"
    [one, other] = found("needle", b"needle\n", long[:LINE_BYTES], long[LINE_BYTES:], told=Told(after=2))
    assert (one.number, other.number, other.column) == (1, 2, None)
    assert other.text[0] == other.text[-1] == "…"
    assert len(other.text) == SHOWN_BYTES + 2
    told = found("needle", b"first\n", long, b"needle", long, b"\nlast", told=Told(before=1, after=1))
    assert [(line.number, line.column) for line in told] == [(1, None), (2, len(long)), (3, None)]


def test_each_part_of_a_line_that_matches() -> None:
    parts = Told(parts=True)
    assert found("a+|b*", b"aab caa\r\nab", told=parts) == [
        FoundLine(1, 0, "aa"),
        FoundLine(1, 2, "b"),
        FoundLine(1, 5, "aa"),
        FoundLine(2, 0, "a"),
        FoundLine(2, 1, "b"),
    ]
    assert found("^a|a$", b"aaa\naa\n", told=parts) == [
        FoundLine(1, 0, "a"),
        FoundLine(1, 2, "a"),
        FoundLine(2, 0, "a"),
        FoundLine(2, 1, "a"),
    ]


@pytest.mark.parametrize("at", [0, LINE_BYTES - OVERLAP_BYTES, LINE_BYTES - 7, LINE_BYTES - 1, LINE_BYTES])
def test_each_part_of_a_long_line_is_told_once(at: int) -> None:
    line = b"x" * at + b"needle" + b"y" * LINE_BYTES + b"needle" + b"z" * 10
    blocks = [line[start : start + LINE_BYTES] for start in range(0, len(line), LINE_BYTES)]
    told = found("needle", *blocks, told=Told(parts=True))
    assert [each.column for each in told] == [at, at + 6 + LINE_BYTES]


def test_many_empty_parts_are_turns_for_others() -> None:
    lines = FileLines(pattern("x*"), Told(parts=True))
    assert list(lines.feed(b"a" * 1000 + b"\n")) == [None] * 1000


def test_the_middle_of_a_line_is_not_its_beginning() -> None:
    data = b"x" * 3 * LINE_BYTES
    assert found("^y|^x{3}z", data, b"y\n") == []
    assert [line.column for line in found("^x", data, data, b"\n")] == [0]


def test_what_is_kept_of_a_line_is_bounded() -> None:
    """A line of a gigabyte takes no more than one of some blocks."""
    lines, block = FileLines(pattern("needle")), b"x" * LINE_BYTES
    for _ in range(500):
        assert list(lines.feed(block)) == []
        assert len(lines._rest) <= OVERLAP_BYTES
    assert [line and line.column for line in lines.feed(b"needle\n")] == [500 * LINE_BYTES]


def test_the_worst_pattern_takes_bounded_time_for_a_block() -> None:
    begun = time.thread_time()
    for text in ("(a+)+$", "(a|a)*c", "(.*)*x", "a*a*a*a*a*c", "(?:a|b)*a(?:a|b){200}c"):
        assert len(found(text, b"ab" * (LINE_BYTES // 2))) <= 1
    assert time.thread_time() - begun < 10
