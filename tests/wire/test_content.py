"""File contents in messages: every shape that 1.0 takes, cut anywhere, in bounded memory."""

from __future__ import annotations

import json
import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.wire.content import content_chunks, numbers

chunk_sizes = st.integers(1, 40)


def whole(document: bytes, chunk_bytes: int = 1 << 18) -> bytes:
    return b"".join(content_chunks(Raw(document), chunk_bytes))


@given(st.binary(max_size=400), chunk_sizes, st.sampled_from([None, 1]))
def test_numbers_there_and_back(data: bytes, chunk_bytes: int, indent: int | None) -> None:
    assert whole(json.dumps(list(data), indent=indent).encode(), chunk_bytes) == data
    assert whole(bytes(numbers(data)), chunk_bytes) == data
    assert json.loads(bytes(numbers(memoryview(data)))) == list(data)


@given(st.text(st.characters(exclude_categories=())), chunk_sizes, st.booleans())
def test_text_is_written_as_utf_8(text: str, chunk_bytes: int, ascii_only: bool) -> None:
    document = json.dumps(text, ensure_ascii=ascii_only).encode("utf-8", "replace")
    expected = json.loads(document).encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
    assert whole(document, chunk_bytes) == expected


@given(
    st.lists(st.sampled_from(["\\n", "\\\\", "u", "\\ud83d", "\\ude00", '\\"', "é", "\U0001f600", "x" * 9]))
)
def test_text_cut_at_every_place(units: list[str]) -> None:
    document = f'"{"".join(units)}"'.encode()
    expected = whole(document)
    for chunk_bytes in range(1, len(document) + 1):
        assert whole(document, chunk_bytes) == expected


def test_nothing_is_an_empty_file() -> None:
    assert list(content_chunks(UNSET)) == []
    for document in (b"", b"null", b"[]", b"[ ]", b'""'):
        assert whole(document) == b""


@pytest.mark.parametrize(
    "document",
    [
        b"5", b"true", b"{}", b'{"0":1}', b"nul", b"[", b'"', b"[1", b"1]", b'"a', b"[1,,2]", b"[1,]",
        b"[,1]", b"[,]", b"[1.0]", b"[1e1]", b"[1.5]", b"[-1]", b"[256]", b"[9999999999999999999999]",
        b"[true]", b"[null]", b'["1"]', b"[[1]]", b"[1,[2]]", b"[1],[2]", b"[1] 5", b"[1]]", b"[[1]",
        b'"a"b"', b'"\\ud8"', b'"\\q"', b'"\xff"', b'"\xc3"',
        b"[" * 100_000 + b"]" * 100_000,
    ],
)  # fmt: skip
@pytest.mark.parametrize("position", ["alone", "late"])
def test_anything_else_is_refused(document: bytes, position: str) -> None:
    if position == "late" and document.startswith(b"["):
        document = b"[" + b"7," * 200 + document[1:]
    for chunk_bytes in (1, 7, 100, 1 << 18):
        with pytest.raises(InvalidRequest) as caught:
            whole(document, chunk_bytes)
        assert caught.value.code == "invalid-argument"


def test_a_large_file_takes_the_memory_of_a_few_pieces() -> None:
    data = random.Random(1).randbytes(4_000_000)
    raw = numbers(data)
    tracemalloc.start()
    try:
        assert sum(len(chunk) for chunk in content_chunks(raw)) == len(data)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 8 << 20  # a list of the numbers alone would be 32 MB
