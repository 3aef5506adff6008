"""Errors as messages: what each field says, whose request it was, and no text without a bound."""

from __future__ import annotations

import json

import pytest
from msgspec import UNSET, Raw

from mhnos_runtime.errors import LimitReached, MhnosError, NotFound
from mhnos_runtime.wire.encode import encode
from mhnos_runtime.wire.faults import SHOWN_CHARACTERS, error_message, shorten
from mhnos_runtime.wire.parse import WireError


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            NotFound("Process 7 not found", code="unknown-process"),
            {"error": "Process 7 not found", "code": "unknown-process", "retry": False},
        ),
        (
            LimitReached("full", code="input-full", hint="wait"),
            {"error": "full", "code": "input-full", "hint": "wait", "retry": True},
        ),
        (MhnosError("x"), {"error": "x", "code": "internal", "retry": False}),
    ],
)
def test_errors(error: MhnosError, expected: dict[str, object]) -> None:
    assert json.loads(encode(error_message(error))) == {"type": "error", **expected}
    assert json.loads(encode(error_message(error, Raw(b"[1]"), pid=7))) == {
        "type": "error", **expected, "id": [1], "pid": 7,
    }  # fmt: skip


def test_a_wire_error_brings_its_own_id() -> None:
    assert error_message(WireError("x", request_id=Raw(b"1"))).id == Raw(b"1")
    assert error_message(WireError("x")).id is UNSET


def test_a_text_is_cut_only_where_it_is_too_long() -> None:
    assert shorten("x" * SHOWN_CHARACTERS) == "x" * SHOWN_CHARACTERS
    assert shorten("x" * (SHOWN_CHARACTERS + 1)) == "x" * SHOWN_CHARACTERS + "…"
    assert shorten("abc", 2) == "ab…"


def test_what_a_client_sent_cannot_make_an_error_long() -> None:
    """An error that repeats a path of a megabyte is no megabyte."""
    shown = error_message(MhnosError("m" * 1_000_000, hint="h" * 1_000_000))
    assert len(encode(shown)) < 10_000
    assert shown.error.endswith("m…")
    assert isinstance(shown.hint, str)
    assert shown.hint.endswith("h…")
