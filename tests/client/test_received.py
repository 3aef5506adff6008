"""What a server sends, as the pure machine that both kinds of connection use."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.client.errors import ProtocolViolation
from mhnos_runtime.client.received import Goodbye, Inbound, Ping, failure, name, number
from mhnos_runtime.wire import frames
from mhnos_runtime.wire import messages as m
from mhnos_runtime.wire.answers import Unknown
from tests.server import raw

OUTPUT = frames.pack_header(frames.STDOUT, 0, 1, 2) + b"ab"
SENT = b"".join(
    [
        raw.frame(raw.TEXT, b'{"type":"pong",', final=False, mask=None),
        raw.frame(raw.PING, b"now", mask=None),
        raw.frame(raw.CONTINUATION, b'"time":1}', mask=None),
        raw.frame(raw.PONG, mask=None),
        raw.frame(raw.BINARY, OUTPUT, mask=None),
        raw.frame(raw.TEXT, b'{"type":"new","id":7}', mask=None),
        raw.frame(raw.CLOSE, b"\x03\xe9why", mask=None),
        raw.frame(raw.PING, b"late", mask=None),
    ]
)


@given(st.integers(1, len(SENT)))
def test_everything_comes_in_order_however_it_is_cut(at_once: int) -> None:
    inbound, found = Inbound(), []
    for start in range(0, len(SENT), at_once):
        inbound.feed(SENT[start : start + at_once])
        while (got := inbound.next()) is not None:
            found.append(got)
    assert found[0] == Ping(b"now")
    assert found[1] == m.Pong(1)
    assert isinstance(found[2], frames.DataFrame)
    assert (found[2].offset, bytes(found[2].payload)) == (2, b"ab")
    assert isinstance(found[3], Unknown)
    assert found[4:] == [Goodbye(1001)]


def test_a_message_of_many_parts_is_whole_and_its_size_known() -> None:
    text = json.dumps({"type": "pong", "time": 1, "padding": "x" * (3 << 20)}).encode()
    inbound = Inbound()
    data = raw.frame(raw.TEXT, text, mask=None)
    got = None
    for start in range(0, len(data), 65_536):
        assert got is None
        inbound.feed(data[start : start + 65_536])
        got = inbound.next()
    assert got == m.Pong(1)
    assert inbound.size == len(text)


@given(st.binary(max_size=300))
def test_any_bytes_are_something_or_a_violation(data: bytes) -> None:
    inbound = Inbound()
    inbound.feed(data)
    try:
        while inbound.next() is not None:
            pass
    except ProtocolViolation:
        pass


@pytest.mark.parametrize(
    ("id_", "expected"),
    [(msgspec.Raw(b"7"), 7), (msgspec.Raw(b'"x"'), 0), (msgspec.Raw(b"1.5"), 0), (msgspec.UNSET, 0)],
)
def test_whose_answer_it_is(id_: object, expected: int) -> None:
    assert number(id_) == expected


def test_an_error_without_details_is_one_as_well() -> None:
    error = failure(m.ErrorMessage("no"))
    assert (error.message, error.code, error.hint, error.retry) == ("no", "internal", "", False)
    assert name(m.ErrorMessage("no")) == "error"
