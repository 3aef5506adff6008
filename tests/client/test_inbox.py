"""The inbox against a plain model: whatever is repeated, dropped or overlapping, each byte comes once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.client.errors import ProtocolViolation
from mhnos_runtime.client.inbox import Flow, Inbox
from mhnos_runtime.client.types import Gap, Output


def drain(inbox: Inbox) -> list[Output | Gap]:
    items = []
    while (item := inbox.take()) is not None:
        items.append(item)
    return items


def text(items: list[Output | Gap]) -> bytes:
    return b"".join(item.data for item in items if isinstance(item, Output))


def test_a_hole_is_a_violation() -> None:
    inbox = Inbox(0)
    inbox.output("stdout", 0, b"ab")
    with pytest.raises(ProtocolViolation, match="from offset 2 to 3"):
        inbox.output("stdout", 3, b"d")
    with pytest.raises(ProtocolViolation):
        inbox.gap(3, 9)


def test_an_overlap_is_trimmed() -> None:
    inbox = Inbox(0)
    inbox.output("stdout", 0, b"abc")
    inbox.output("stderr", 1, b"bcde")
    inbox.output("stdout", 0, b"abc")
    assert drain(inbox) == [Output("stdout", 0, b"abc"), Output("stderr", 3, b"de")]


def test_a_gap_is_shown_in_its_place() -> None:
    inbox = Inbox(0)
    inbox.output("stdout", 0, b"ab")
    inbox.gap(1, 10)
    inbox.output("stdout", 10, b"k")
    assert drain(inbox) == [Output("stdout", 0, b"ab"), Gap(2, 10), Output("stdout", 10, b"k")]


def test_an_unknown_start_is_taken_from_the_first_message() -> None:
    inbox = Inbox()
    inbox.begin_sync()
    inbox.gap(0, 7)
    inbox.output("stdout", 7, b"x")
    inbox.synced(7, 8)
    assert drain(inbox) == [Gap(0, 7), Output("stdout", 7, b"x")]


def test_an_empty_replay_says_where_the_next_byte_is() -> None:
    inbox = Inbox()
    inbox.begin_sync()
    inbox.synced(40, 40)
    with pytest.raises(ProtocolViolation):
        inbox.output("stdout", 41, b"x")


def test_a_replay_that_stops_short_is_a_violation() -> None:
    inbox = Inbox(0)
    inbox.begin_sync()
    inbox.output("stdout", 0, b"ab")
    with pytest.raises(ProtocolViolation):
        inbox.synced(0, 3)


def test_frames_under_way_before_a_replay_do_no_harm() -> None:
    inbox = Inbox(0, high_water_bytes=4, low_water_bytes=2)
    inbox.output("stdout", 0, b"abcd")
    inbox.output("stdout", 4, b"ef")
    assert (inbox.flow, inbox.wants_replay) == (Flow.OVERFLOWED, False)
    assert text(drain(inbox)) == b"abcd"
    assert (inbox.flow, inbox.wants_replay) == (Flow.OVERFLOWED, True)
    inbox.begin_sync()
    inbox.output("stdout", 6, b"gh")  # was on its way when the replay was asked for
    inbox.output("stdout", 4, b"ef")
    inbox.output("stdout", 6, b"g")
    inbox.synced(4, 7)
    assert text(drain(inbox)) == b"efg"


@given(
    st.binary(min_size=1, max_size=200),
    st.lists(st.tuples(st.integers(0, 199), st.integers(1, 50)), max_size=60),
    st.integers(1, 40),
)
def test_repeats_and_overlaps_never_double_or_lose(
    log: bytes, steps: list[tuple[int, int]], high_water_bytes: int
) -> None:
    inbox = Inbox(0, high_water_bytes=high_water_bytes, low_water_bytes=high_water_bytes // 2)
    got = b""
    for offset, size in steps:
        expected = inbox.expected or 0
        start = min(offset, expected)
        inbox.output("stdout", start, log[start : expected + size])
        if size % 3 == 0:
            got += text(drain(inbox))
            if inbox.wants_replay:
                inbox.begin_sync()
                inbox.synced(inbox.expected or 0, inbox.expected or 0)
        assert inbox.queued_bytes <= high_water_bytes + len(log)
    got += text(drain(inbox))
    assert log.startswith(got)
    assert inbox.consumed == inbox.expected == len(got)
