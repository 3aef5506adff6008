"""What a client makes of text frames, whoever wrote them."""

from __future__ import annotations

import pytest
from msgspec import UNSET, Raw

from mhnos_runtime.wire import messages
from mhnos_runtime.wire.answers import Unknown, parse_message

DEEP = 100_000


def test_a_client_reads_what_a_server_writes() -> None:
    assert parse_message(b'{"type":"stderr","pid":1,"data":"x","new":1}') == messages.Stderr(1, "x")


@pytest.mark.parametrize("frame", ["", "5", "{}", '{"type":"stdout","pid":"x"}', "[" * DEEP, b"\xff"])
def test_what_a_client_does_not_understand_is_unknown_and_says_why(frame: str | bytes) -> None:
    found = parse_message(frame)
    assert isinstance(found, Unknown)
    assert (found.id, bool(found.reason)) == (UNSET, True)


def test_an_answer_of_a_newer_server_still_says_whose_it_is() -> None:
    newer = parse_message('{"id":7,"type":"fromTheFuture"}')
    assert newer == Unknown(Raw(b"7"), "Invalid value 'fromTheFuture' - at `$.type`")
