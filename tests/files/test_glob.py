"""Globs against their meaning in wildmatch.c; test_ignore.py compares them with git itself."""

from __future__ import annotations

import re

import pytest

from mhnos_runtime.files.glob import expression


def takes(glob: str, text: str) -> bool:
    made = expression(glob.encode())
    return made is not None and re.fullmatch(made, text.encode(), re.DOTALL) is not None


@pytest.mark.parametrize(
    ("glob", "good", "bad"),
    [
        ("abc", ["abc"], ["ab", "abcd", ""]),
        ("a.c", ["a.c"], ["abc"]),
        ("*", ["", "a", ".a", "a\n"], ["a/b"]),
        ("?", ["a", "\n"], ["", "/", "é"]),
        ("**", ["", "a/b/c"], []),
        ("**/a", ["a", "b/a", "b/c/a"], ["ba", "a/b"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "ab"]),
        ("a/**/b", ["a/b", "a/c/b", "a/c/d/b"], ["ab", "a/cb"]),
        ("a/***/b", ["a/b", "a/c/d/b"], ["ab"]),
        ("a**b", ["ab", "acb"], ["a/b"]),
        ("[abc]", ["a", "c"], ["d", "ab", ""]),
        ("[a-c]", ["a", "b", "c"], ["d", "-"]),
        ("[a-]", ["a", "-"], ["b"]),
        ("[-a]", ["a", "-"], ["b"]),
        ("[a-c-e]", ["a", "b", "c", "-", "e"], ["d"]),
        ("[z-a]", ["z"], ["a", "m", "-"]),
        ("[!a]", ["b", "\n"], ["a", "/"]),
        ("[^a]", ["b"], ["a", "/"]),
        ("[!]a]", ["b"], ["]", "a"]),
        ("[]a]", ["]", "a"], ["b"]),
        (r"[\]a]", ["]", "a"], ["\\"]),
        (r"[a-\d]", ["c"], ["e", "\\"]),
        (r"[\\]", ["\\"], ["a"]),
        ("[[:alpha:]]", ["a", "Z"], ["1", ":", "["]),
        ("[[:digit:]a-c]", ["1", "b"], ["d"]),
        ("[![:space:]]", ["a"], [" ", "/"]),
        ("[[:]", ["[", ":"], ["]"]),
        ("[[:a]", ["[", ":", "a"], ["b"]),
        ("[[a]", ["[", "a"], ["]"]),
        (r"\*", ["*"], ["a", r"\*"]),
        (r"\a", ["a"], [r"\a"]),
    ],
)
def test_what_a_glob_takes(glob: str, good: list[str], bad: list[str]) -> None:
    assert [text for text in good if not takes(glob, text)] == []
    assert [text for text in bad if takes(glob, text)] == []


@pytest.mark.parametrize(
    "glob",
    ["a\\", "[", "[a", "[]", "[!]", "[a-", "[a\\", "[[:alpha:]", "[[:alpha", "[[:what:]]", "[/]"],
)
def test_globs_that_match_nothing(glob: str) -> None:
    assert expression(glob.encode()) is None
