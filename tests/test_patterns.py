"""Which patterns are taken, and what is shown of a long line."""

from __future__ import annotations

import sys

import pytest

from mhnos_runtime.errors import InvalidRequest, Unavailable
from mhnos_runtime.patterns import SHOWN_BYTES, compiled, cut


@pytest.mark.parametrize(
    "pattern",
    [
        "(",
        "a**",
        "(x{1000}){1000}",
        r"\pL{1000}",
        r"(a)\1",
        "(?=a)",
        r"\Aa",
        r"a\z",
        "(?:" + "a" * 100 + "){20}",
        "[[:word:]]{501}",
    ],
)
def test_what_is_no_pattern_or_too_large_a_one_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidRequest, match="pattern: "):
        compiled(pattern, fixed=False, ignore_case=False)


def test_a_server_without_re2_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)
    with pytest.raises(Unavailable) as raised:
        compiled("a", fixed=False, ignore_case=False)
    assert "google-re2" in raised.value.hint


def test_a_text_is_taken_as_it_is() -> None:
    assert compiled("(", fixed=True, ignore_case=False).search(b"a(b").span() == (1, 2)
    assert compiled("A", fixed=True, ignore_case=True).search(b"ba").span() == (1, 2)


@pytest.mark.parametrize(
    ("pattern", "fixed", "found"),
    [
        ("cat", False, ["cat.", "a cat", "cat @cat", "a@cat"]),
        ("cats|dog", False, ["cats", "hotdog dog", "@cats"]),
        ("cat.", True, ["cat."]),
        ("@cat", True, ["cat @cat"]),
    ],
)
def test_whole_words(pattern: str, fixed: bool, found: list[str]) -> None:
    made = compiled(pattern, fixed=fixed, ignore_case=False, word=True)
    lines = ["cat.", "a cat", "concat", "cats", "cat_", "hotdog dog", "cat @cat", "a@cat", "@cats"]
    assert [line for line in lines if made.search(line.encode())] == found


def test_what_is_wrong_with_a_word_is_told_in_its_own_words() -> None:
    with pytest.raises(InvalidRequest, match=r"pattern: .*\)"):
        compiled("a)|(b", fixed=False, ignore_case=False, word=True)


def test_what_is_shown_of_a_long_line_has_what_matched_in_it() -> None:
    assert cut(b"abc", 1, 2) == "abc"
    line = b"x" * 1000 + b"needle" + b"y" * 1000
    assert "needle" in cut(line, 1000, 1006)
    assert cut(line, 0, 1).startswith("xxx")
    assert cut(line, len(line) - 1, len(line)).endswith("yyy")
    assert len(cut(line, 0, len(line))) <= SHOWN_BYTES + 2
