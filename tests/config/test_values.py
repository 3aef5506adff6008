"""Sizes, and that showing a value and reading it again changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.config.values import Where, Wrong, base_path, path, show_size, size_of

WHERE = Where(Path("/folder"), Path("/home/me"))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("65536", 65536),
        ("1k", 1024),
        ("1K", 1024),
        ("1kb", 1024),
        ("1KiB", 1024),
        ("512m", 512 << 20),
        ("1g", 1 << 30),
        (" 1.5g ", 3 << 29),
        ("2t", 2 << 40),
        ("100b", 100),
        ("0.5k", 512),
        ("1 g", 1 << 30),
        ("1.0", 1),
        ("0.3k", 307),
    ],
)
def test_size(text: str, size: int) -> None:
    assert size_of(text) == size


@pytest.mark.parametrize(
    "text", ["", "g", "-1", "1.5", "1e9", "1,5g", "1..5g", "1gg", "0x10", "١", "1.5.5g", "1p", "9" * 19]
)
def test_not_a_size(text: str) -> None:
    with pytest.raises(Wrong):
        size_of(text)


@given(st.integers(0, 1 << 50))
def test_shown_sizes_are_exact(size: int) -> None:
    assert size_of(show_size(size)) == size


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("/a", "/a"),
        ("a", "/folder/a"),
        ("~", "/home/me"),
        ("~/a", "/home/me/a"),
        ("~you", "/folder/~you"),
        ("..", "/folder/.."),
    ],
)
def test_path(text: str, result: str) -> None:
    assert path().parse(text, WHERE) == Path(result)


@pytest.mark.parametrize(
    "text", ["/a//b", "/a/../b", "/.", "/%2e%2e/", "/a%2fb", "/%00", "/a?b", "/a b", "/a#", "/ä", "%"]
)
def test_a_base_path_is_plain(text: str) -> None:
    with pytest.raises(Wrong):
        base_path().parse(text, WHERE)
