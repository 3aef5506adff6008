"""Files as headers tell of them, and what headers ask of a file."""

from __future__ import annotations

import pytest

from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.files.draft import Condition
from mhnos_runtime.files.entries import Entry
from mhnos_runtime.server.api.file_headers import (
    condition_of,
    head_of,
    mode_of,
    mtime_of,
    status_of,
    type_of,
)

VERSION = "0123456789abcdef01234567"
SAME, OTHER = f'"{VERSION}"', '"ffffffffffffffffffffffff"'
FILE = Entry("/a.py", "file", 10, 0o640, 1_764_590_400_500, VERSION)
THEN, BEFORE = "Mon, 01 Dec 2025 12:00:00 GMT", "Mon, 01 Dec 2025 11:59:59 GMT"


def test_what_is_told_of_a_file() -> None:
    shown = head_of(FILE)
    assert shown["ETag"] == SAME
    assert shown["Last-Modified"] == THEN
    assert (shown["Mhnos-Mode"], shown["Mhnos-Mtime"]) == ("0640", "1764590400500")
    assert shown["Content-Disposition"] == "attachment"
    assert shown["Content-Security-Policy"] == "sandbox"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, None),
        ({"If-Match": SAME}, None),
        ({"If-Match": "*"}, None),
        ({"If-Match": OTHER}, 412),
        ({"If-Match": f"W/{SAME}"}, 412),
        ({"If-Match": "nonsense"}, 412),
        ({"If-None-Match": SAME}, 304),
        ({"If-None-Match": f"{OTHER}, W/{SAME}"}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": OTHER}, None),
        ({"If-None-Match": "nonsense"}, None),
        ({"If-Modified-Since": THEN}, 304),
        ({"If-Modified-Since": BEFORE}, None),
        ({"If-Modified-Since": "nonsense"}, None),
        ({"If-Unmodified-Since": THEN}, None),
        ({"If-Unmodified-Since": BEFORE}, 412),
        # RFC 9110, 13.2.2: a tag goes before a date.
        ({"If-None-Match": OTHER, "If-Modified-Since": THEN}, None),
        ({"If-Match": SAME, "If-Unmodified-Since": BEFORE}, None),
        ({"If-Match": OTHER, "If-None-Match": SAME}, 412),
    ],
)
def test_conditions_of_reading(headers: dict[str, str], status: int | None) -> None:
    assert status_of(FILE, headers) == status


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, Condition()),
        ({"If-Match": SAME}, Condition(versions=frozenset({VERSION}))),
        ({"If-Match": "*"}, Condition(exists=True)),
        ({"If-Match": "nonsense"}, Condition(versions=frozenset())),
        ({"If-Match": f"W/{SAME}"}, Condition(versions=frozenset())),
        ({"If-None-Match": "*"}, Condition(absent=True)),
        # RFC 9110, 13.1.3: for reading alone.
        ({"If-Modified-Since": THEN}, Condition()),
    ],
)
def test_conditions_of_writing(headers: dict[str, str], expected: Condition) -> None:
    assert condition_of(headers) == expected


@pytest.mark.parametrize("headers", [{"If-Unmodified-Since": THEN}, {"If-None-Match": SAME}])
def test_a_condition_that_could_not_be_kept_to_is_refused(headers: dict[str, str]) -> None:
    """Ignored, it would let an edit of somebody else be overwritten."""
    with pytest.raises(InvalidRequest):
        condition_of(headers)


def test_modes_and_times() -> None:
    assert [mode_of(text) for text in (None, "0644", "755", "0", "0000")] == [None, 0o644, 0o755, 0, 0]
    assert [mtime_of(text) for text in (None, "0", "-1", "1764590400500")] == [None, 0, -1, 1764590400500]
    for text in ("", "4755", "0o644", "888", "-644", " 644", "644\u0661", "00644"):
        with pytest.raises(InvalidRequest):
            mode_of(text)
    for text in ("", "1.5", "1e3", "9" * 16, "9" * 5000, "\u0661", "+1"):
        with pytest.raises(InvalidRequest):
            mtime_of(text)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a.png", "image/png"),
        ("/a.json", "application/json; charset=utf-8"),
        ("/a.css", "text/css; charset=utf-8"),
        ("/a.txt", "text/plain; charset=utf-8"),
        ("/a.py", "text/plain; charset=utf-8"),
        # What runs, or has links and scripts in it.
        ("/a.html", "text/plain; charset=utf-8"),
        ("/a.js", "text/plain; charset=utf-8"),
        ("/a.svg", "application/octet-stream"),
        ("/a.xhtml", "application/octet-stream"),
        ("/a.pdf", "application/octet-stream"),
        ("/a.tar.gz", "application/octet-stream"),
        ("/a", "application/octet-stream"),
        ("/.png", "application/octet-stream"),
    ],
)
def test_a_type_that_no_browser_runs(path: str, expected: str) -> None:
    assert type_of(path) == expected
