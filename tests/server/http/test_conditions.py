"""Entity tags, dates and ranges as they come in headers, right and wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.server.http.conditions import NoSuchRange, Span, Tags, date, seconds, span, tags

TAG = "0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*", Tags(any=True)),
        (" * ", Tags(any=True)),
        ('"a"', Tags(strong=frozenset({"a"}))),
        ('W/"a"', Tags(weak=frozenset({"a"}))),
        ('"a", W/"b" ,"c"', Tags(strong=frozenset({"a", "c"}), weak=frozenset({"b"}))),
        # RFC 9110, 5.6.1: empty elements count for nothing.
        (',"a",, "b",', Tags(strong=frozenset({"a", "b"}))),
        ('"a,b"', Tags(strong=frozenset({"a,b"}))),
        ('""', Tags(strong=frozenset({""}))),
        # What is no list matches nothing, so that no condition is taken for fulfilled.
        ("", Tags()),
        (TAG, Tags()),
        ('"a', Tags()),
        ('"a" "b"', Tags()),
        ('"a", *', Tags()),
        ('"a", b', Tags()),
        ('w/"a"', Tags()),
        ("**", Tags()),
    ],
)
def test_a_list_of_tags(text: str, expected: Tags) -> None:
    assert tags({"If-Match": text}, "If-Match") == expected


def test_no_header_is_no_condition() -> None:
    assert tags({}, "If-Match") is None


def test_a_weak_tag_is_alike_and_not_the_same() -> None:
    """RFC 9110, 8.8.3.2."""
    weak, strong = Tags(weak=frozenset({"a"})), Tags(strong=frozenset({"a"}))
    assert (weak.same("a"), weak.alike("a")) == (False, True)
    assert (strong.same("a"), strong.alike("a")) == (True, True)
    assert (strong.same("b"), Tags(any=True).alike("b")) == (False, True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bytes=0-0", Span(0, 1)),
        ("bytes=0-", Span(0, 10)),
        ("bytes=3-4", Span(3, 5)),
        ("bytes=3-99", Span(3, 10)),
        ("bytes=9-", Span(9, 10)),
        ("bytes=-3", Span(7, 10)),
        ("bytes=-99", Span(0, 10)),
        ("BYTES = 3-4 ", Span(3, 5)),
        # Not understood, or several: the whole file (RFC 9110, 14.2).
        ("", None),
        ("bytes=4-3", None),
        ("bytes=0-1,3-4", None),
        ("bytes=a-b", None),
        ("bytes=-", None),
        ("bytes=1", None),
        ("lines=0-1", None),
        ("bytes=+1-2", None),
        ("bytes=1_0-", None),
        ("bytes=٣-٤", None),
        ("bytes=" + "9" * 5000 + "-", None),
    ],
)
def test_a_range(text: str, expected: Span | None) -> None:
    assert span({"Range": text}, 10, TAG) == expected


@pytest.mark.parametrize("text", ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=9999999999999999999-"])
def test_a_range_behind_the_end(text: str) -> None:
    with pytest.raises(NoSuchRange):
        span({"Range": text}, 10, TAG)


def test_an_empty_file_has_no_range() -> None:
    for text in ("bytes=0-", "bytes=-1", "bytes=0-0"):
        with pytest.raises(NoSuchRange):
            span({"Range": text}, 0, TAG)


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        (f'"{TAG}"', True),
        (f' "{TAG}" ', True),
        (f'W/"{TAG}"', False),
        ('"another"', False),
        ("Mon, 01 Dec 2025 12:00:00 GMT", False),
        ("", False),
    ],
)
def test_a_range_of_another_version_is_all_of_this_one(text: str, counts: bool) -> None:
    assert (span({"Range": "bytes=1-2", "If-Range": text}, 10, TAG) is not None) is counts


@given(st.text(max_size=40), st.integers(0, 1 << 62))
def test_no_range_reaches_out_of_the_file(text: str, size: int) -> None:
    try:
        found = span({"Range": "bytes=" + text}, size, TAG)
    except NoSuchRange:
        return
    assert found is None or 0 <= found.start < found.end <= size


@given(st.text(max_size=60))
def test_any_text_may_stand_for_tags_and_dates(text: str) -> None:
    found = tags({"If-Match": text}, "If-Match")
    assert found is not None
    assert all(f'"{tag}"' in text for tag in found.strong | found.weak)
    assert seconds({"If-Modified-Since": text}, "If-Modified-Since") is None or any(map(str.isdigit, text))


def test_dates_there_and_back() -> None:
    for at in (0, 1_764_547_200, 253402300799):
        assert seconds({"Date": date(at)}, "Date") == at
    assert date(0) == "Thu, 01 Jan 1970 00:00:00 GMT"
    assert date(1 << 62).startswith("Fri, 31 Dec 9999")
    assert date(-(1 << 62)).endswith("0001 00:00:00 GMT")
    assert seconds({"Date": "no date"}, "Date") is None
    assert seconds({}, "Date") is None
