"""Which lines match, where they are, and that no pattern takes more than its share of memory and time."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.launch import STDERR, STDOUT
from mhnos_runtime.output import Chunk
from mhnos_runtime.patterns import MAX_PROGRAM, compiled
from mhnos_runtime.server.processes.searching import LINE_BYTES, Found, LineSearch


def chunks(*parts: bytes | tuple[int, bytes]) -> list[Chunk]:
    """Each captured 1000 ms after the one before."""
    offset, made = 0, []
    for number, part in enumerate(parts):
        stream, data = part if isinstance(part, tuple) else (STDOUT, part)
        made.append(Chunk(offset, stream, data, 1000 * number))
        offset += len(data)
    return made


def found(pattern: str, parts: list[Chunk], left: int = 10_000, **options: bool) -> list[Found]:
    made = compiled(pattern, **{"fixed": False, "ignore_case": False, **options})
    search = LineSearch(made, left, 1 << 20)
    return sorted(filter(None, [each for part in parts for each in search.feed([part])] + list(search.end())))


def lines(pattern: str, data: bytes, **options: bool) -> list[str]:
    return [each.line for each in found(pattern, chunks(data), **options)]


def test_a_line_has_the_place_and_time_of_its_first_byte() -> None:
    parts = chunks(b"one\ntw", (STDERR, b"err"), b"o\nthree\n", (STDERR, b"or\n"))
    assert found("t|e", parts) == [
        Found(0, STDOUT, 0, "one"),
        Found(4, STDOUT, 0, "two"),
        Found(6, STDERR, 1000, "error"),
        Found(11, STDOUT, 2000, "three"),
    ]


@pytest.mark.parametrize(
    ("pattern", "matching"),
    [
        ("b", ["abc", "\u00fcber"]),
        ("^a", ["abc", "a.c"]),
        ("c$", ["abc", "a.c"]),
        ("^$", [""]),
        ("x*", ["abc", "", "a.c", "\u00fcber"]),
        ("a.c", ["abc", "a.c"]),
        (r"c\s+a", []),
        ("c[^x]*a", []),
        ("(?s)c.*a", []),
        ("^.ber", ["\u00fcber"]),
        ("\u00fc", ["\u00fcber"]),
        ("\n", []),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_pattern_is_matched_inside_of_each_line(pattern: str, matching: list[str], end: str) -> None:
    """Also where lines end as a terminal's do."""
    assert lines(pattern, end.join(["abc", "", "a.c", "\u00fcber", ""]).encode()) == matching


def test_a_text_and_upper_and_lower_case() -> None:
    data = "abc\na.c\nA.C\n\u00dcBER\n".encode()
    assert lines("a.c", data, fixed=True) == ["a.c"]
    assert lines("a.c", data, fixed=True, ignore_case=True) == ["a.c", "A.C"]
    assert lines("\u00fcber", data, ignore_case=True) == ["\u00dcBER"]
    assert lines("(", b"a(b\n", fixed=True) == ["a(b"]
    assert lines(r"\A", b"a\\Ab\n", fixed=True) == [r"a\Ab"]
    assert lines(r"\\A", b"a\\Ab\n") == [r"a\Ab"]


def test_what_is_no_text_is_searched_all_the_same() -> None:
    assert lines("needle", b"\xff\xfe needle \xc3\x00\n") == ["\ufffd\ufffd needle \ufffd\0"]


def test_patterns_that_others_hang_on_take_linear_time() -> None:
    data = b"a" * 60_000 + b"b\n"
    begun = time.process_time()
    for pattern in ("(a+)+$", "(a|a)*c", "(.*)*x", "a*a*a*a*a*c", "(?:a|b)*a(?:a|b){200}c"):
        assert lines(pattern, data) == []
    assert time.process_time() - begun < 10


def test_the_largest_program_takes_its_step_in_bounded_time() -> None:
    import random

    data = bytes(random.Random(1).choices(b"ab", k=LINE_BYTES))
    pattern = compiled(
        f"(?:[ab]*a[ab]{{{MAX_PROGRAM // 2 - 50}}}c|[ab]*b[ab]{{{MAX_PROGRAM // 2 - 50}}}d)",
        fixed=False,
        ignore_case=False,
    )
    assert pattern.programsize > MAX_PROGRAM * 0.8
    begun = time.process_time()
    assert list(LineSearch(pattern, 1, 1000).feed(chunks(data + b"\n"))) == [None]
    assert time.process_time() - begun < 10


def test_a_long_line_is_shown_around_what_matched() -> None:
    for before, after in ((0, 5000), (3000, 3000), (5000, 0)):
        [line] = lines("needle", b"x" * before + b"needle" + b"y" * after + b"\n")
        assert "needle" in line
        assert len(line) <= 402
        assert (line[0] == "\u2026", line[-1] == "\u2026") == (before > 0, after > 0)
    [line] = lines("a+", b"\xc3\xa4" * 400 + b"a" * 1000)
    assert len(line) <= 402


def test_a_line_without_an_end_is_searched_in_pieces() -> None:
    parts = chunks(*[b"x" * 1000] * 200, b"needle")
    assert [each.line[-6:] for each in found("needle$", parts)] == ["needle"]
    assert len(found("x", parts)) == 4  # 64 pieces of a thousand and more


def test_no_more_is_found_than_is_left() -> None:
    assert len(found("x*", chunks(b"\n" * 100), left=3)) == 3
    search = LineSearch(compiled("a", fixed=False, ignore_case=False), 1000, 10)
    assert len(list(filter(None, search.feed(chunks(b"aaaaaa\n" * 100))))) == 2
    assert search.full


@given(
    st.lists(
        st.tuples(
            st.integers(0, 1), st.sampled_from([b"a", b"b", b"\n", b"\r\n", b"ab\nb", b"\xc3", b"\xa4"])
        ),
        max_size=30,
    ),
    st.sampled_from(["a", "b$", "^b", "^$", "ab?", "."]),
)
def test_pieces_make_no_difference(parts: list[tuple[int, bytes]], pattern: str) -> None:
    made: Any = compiled(pattern, fixed=False, ignore_case=False)
    for stream in (STDOUT, STDERR):
        data = b"".join(part for of, part in parts if of == stream)
        whole = [line.removesuffix(b"\r") for line in data.split(b"\n")]
        whole = whole[:-1] if not whole[-1] else whole
        wanted = [line.decode("utf-8", "replace") for line in whole if made.search(line)]
        assert [each.line for each in found(pattern, chunks(*parts)) if each.stream == stream] == wanted
