"""Records of the trash: read as they were written, and nothing else is one."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.files.removed import Record


@given(st.text(max_size=50), st.sampled_from(["file", "directory", "link", "other"]), st.integers())
def test_a_record_is_read_as_it_was_written(path: str, kind: Any, number: int) -> None:
    record = Record("/" + path.encode(errors="replace").decode(), kind, 5, number)
    assert Record.from_json(record.to_json()) == record


@given(st.one_of(st.binary(max_size=200), st.from_type(dict).map(lambda _: b"{}")))
def test_anything_else_is_no_record(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of any text
        Record.from_json(data)


def test_a_record_of_a_name_that_is_not_utf8() -> None:
    record = Record("/" + os.fsdecode(b"\xff"), "file", 0, 0)
    assert Record.from_json(record.to_json()) == record
    json.loads(record.to_json())
