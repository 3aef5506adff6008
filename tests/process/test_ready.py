"""What is found out about a process: lines in pieces, events that may be anything, ports by name."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.process.ready import (
    LINE_BYTES,
    MAX_PORTS,
    ControlEvents,
    LineSearch,
    Port,
    merged,
    port,
    reachable,
)

TEXT = "starting…\r\n\x1b[36mlistening on \x1b[1m42\x1b[0m\r\ndone\n".encode()


@given(st.lists(st.integers(0, len(TEXT)), max_size=6))
def test_a_line_is_found_however_it_is_cut(cuts: list[int]) -> None:
    search, found, start = LineSearch(r"^listening on \d+$"), False, 0
    for end in (*sorted(cuts), len(TEXT)):
        found |= search.feed(0, TEXT[start:end])
        start = end
    assert found


def test_a_line_is_whole_and_of_one_stream() -> None:
    search = LineSearch("^ready$")
    assert not search.feed(0, b"rea")
    assert not search.feed(1, b"dy\n")
    assert not search.feed(0, b"dy")
    assert search.feed(0, b"\n")
    assert not LineSearch("^ready$").feed(0, b"not ready\nready?\n")


def test_what_is_missing_joins_nothing() -> None:
    search = LineSearch("ready")
    search.feed(0, b"rea")
    search.skip()
    assert not search.feed(0, b"dy\n")


def test_a_line_without_an_end_takes_no_memory() -> None:
    search = LineSearch("never")
    for _ in range(100):
        search.feed(0, b"x" * 10_000)
        assert sum(map(len, search._rest.values())) <= LINE_BYTES


def test_what_workerd_tells() -> None:
    events = ControlEvents()
    assert events.feed(b'{"event":"listen","socket":"http","po') == []
    assert events.feed(b'rt":8080}\n{"event":"other"}\n') == [Port("http", 8080, "")]


@pytest.mark.parametrize(
    "line",
    [
        *("", "x", "[]", "null", "{}", '{"event":"listen"}', "[" * 5000),
        *('{"event":"listen","socket":1,"port":1}', '{"event":"listen","socket":"","port":1}'),
        *('{"event":"listen","socket":"a","port":0}', '{"event":"listen","socket":"a","port":65536}'),
        *('{"event":"listen","socket":"a","port":true}', '{"event":"listen","socket":"a","port":"80"}'),
        json.dumps({"event": "listen", "socket": "x" * 129, "port": 1}),
    ],
)
def test_what_makes_no_sense_is_left_out(line: str) -> None:
    events = ControlEvents()
    assert events.feed(line.encode() + b"\n") == []
    assert events.feed(b'{"event":"listen","socket":"a","port":1}\n') == [Port("a", 1, "")]


@given(st.binary(), st.integers(0, 50))
def test_any_bytes_are_taken_however_they_are_split(data: bytes, at: int) -> None:
    parts = data[:at], data[at:]
    events, search = ControlEvents(), LineSearch("[a-z]")
    assert [*events.feed(parts[0]), *events.feed(parts[1])] == list(ControlEvents().feed(data))
    found = [search.feed(0, part) for part in parts]
    assert any(found) == LineSearch("[a-z]").feed(0, data)


def test_ports_by_name() -> None:
    own, told = port("http", 80), Port("http", 80, "")
    # What the runtime opened itself it knows better.
    assert merged((own,), [told]) == (own,)
    assert merged((own,), [Port("http", 81, "")]) == (Port("http", 81, ""),)
    assert merged((own,), [Port("b", 1, "")]) == (own, Port("b", 1, ""))
    many = [Port(str(number), 1, "") for number in range(1000)]
    assert len(merged((), many)) == MAX_PORTS


def test_addresses() -> None:
    assert port("http", 80).url == "http://127.0.0.1:80"
    assert port("https", 80, "::1").url == "https://[::1]:80"
    assert port("sql", 80).url == port("http", 80, "").url == ""
    assert [reachable(each) for each in ("0.0.0.0", "::", "", "192.0.2.1")] == [
        *("127.0.0.1", "127.0.0.1", "", "192.0.2.1"),
    ]


@pytest.mark.parametrize(
    "name", ["", "x" * 129, "ü" * 65, "a\x01", "a\n", "\u2028", "\ud800", "\x7f", "\u200b", None, 7]
)
def test_a_name_that_cannot_be_shown_or_is_too_long_is_left_out(name: object) -> None:
    """64 of 120 control characters each, six bytes for one, once made a record that nobody could be told."""
    assert (
        ControlEvents().feed(json.dumps({"event": "listen", "socket": name, "port": 1}).encode() + b"\n")
        == []
    )


def test_of_many_ports_at_once_the_last_ones_are_told() -> None:
    lines = [json.dumps({"event": "listen", "socket": f"s{n % 100}", "port": n + 1}) for n in range(1000)]
    told = ControlEvents().feed("\n".join([*lines, ""]).encode())
    assert [each.name for each in told] == [f"s{n}" for n in range(100 - MAX_PORTS, 100)]
    assert told[-1].port == 1000
