"""The parser of frames as a pure machine: whatever is cut where, the same events; and what it asks about a
large message. What RFC 6455 forbids is tried through a real server in tests/server/test_rfc6455.py."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.wire import websocket as rfc
from mhnos_runtime.wire.websocket import HEAD_BYTES, SMALL_MESSAGE_BYTES, Incoming, Parser, Violation
from tests.server.raw import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame, masked

MOST = 1 << 23


def unmask(mask: bytes, data: bytearray) -> None:
    data[:] = masked(mask, bytes(data))


def nothing_large(_binary: bool, _head: bytes) -> int:
    return SMALL_MESSAGE_BYTES


def events(data: bytes, cuts: list[int], parser: Parser | None = None) -> tuple[list[Incoming], int | None]:
    """What comes of it, and the code with which it ends. parser: a server's, if no other."""
    parser, found = parser or Parser(unmask, nothing_large, MOST), []
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    try:
        for start, end in itertools.pairwise(places):
            parser.feed(data[start:end])
            while (event := parser.next()) is not None:
                found.append(event)
    except Violation as violation:
        return found, violation.code
    return found, None


payloads = st.one_of(st.binary(max_size=130), st.text(max_size=40).map(str.encode))
frames = st.builds(
    frame,
    st.sampled_from((CONTINUATION, TEXT, TEXT, BINARY, CLOSE, PING, PONG)),
    payloads,
    final=st.booleans(),
    mask=st.binary(min_size=4, max_size=4),
)


@given(st.lists(frames, max_size=6).map(b"".join), st.lists(st.integers(0, 2000), max_size=8))
def test_where_it_is_cut_changes_nothing(data: bytes, cuts: list[int]) -> None:
    assert events(data, cuts) == events(data, [])


@given(st.binary(max_size=300), st.lists(st.integers(0, 400), max_size=4))
def test_any_bytes_are_events_or_a_violation(data: bytes, cuts: list[int]) -> None:
    assert events(data, cuts)[1] in (None, rfc.PROTOCOL_ERROR, rfc.INVALID_TEXT, rfc.TOO_BIG)


class Asked:
    """Notes what it is asked, and answers the same each time."""

    def __init__(self, answer: int) -> None:
        self.answer = answer
        self.heads: list[tuple[bool, bytes]] = []

    def __call__(self, binary: bool, head: bytes) -> int:
        self.heads.append((binary, head))
        return self.answer


def test_a_small_message_is_not_asked_about() -> None:
    asked = Asked(MOST)
    parser = Parser(unmask, asked, MOST)
    parser.feed(frame(BINARY, bytes(SMALL_MESSAGE_BYTES)))
    assert parser.next() == Incoming(BINARY, bytes(SMALL_MESSAGE_BYTES))
    assert asked.heads == []


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_large_one_is_asked_about_once_by_its_beginning(opcode: int) -> None:
    asked = Asked(0)
    payload = b"0123456789abcdef" * (SMALL_MESSAGE_BYTES // 16 + 1)
    data = frame(opcode, payload)
    parser = Parser(unmask, asked, MOST)
    parser.feed(data[: 14 + HEAD_BYTES - 1])
    assert parser.next() is None
    assert asked.heads == []
    parser.feed(data[14 + HEAD_BYTES - 1 : 14 + HEAD_BYTES])
    with pytest.raises(Violation) as caught:
        parser.next()
    assert caught.value.code == rfc.TOO_BIG
    assert asked.heads == [(opcode == BINARY, payload[:HEAD_BYTES])]


def test_fragments_that_add_up_are_asked_about_as_well() -> None:
    asked = Asked(SMALL_MESSAGE_BYTES + 10)
    parser = Parser(unmask, asked, MOST)
    half = bytes(SMALL_MESSAGE_BYTES // 2 + 1)
    parser.feed(frame(BINARY, half, final=False) + frame(CONTINUATION, half, final=False))
    assert parser.next() == Incoming(CONTINUATION, b"", last=False)
    assert parser.next() == Incoming(BINARY, half + half, part=True, last=False)
    assert parser.next() is None
    assert len(asked.heads) == 1
    parser.feed(frame(CONTINUATION, bytes(30)))
    with pytest.raises(Violation) as caught:
        parser.next()
    assert caught.value.code == rfc.TOO_BIG
    assert len(asked.heads) == 1


@pytest.mark.parametrize("fragment", [1 << 30, 100_000, 5000])
def test_a_large_one_comes_in_parts_of_which_nothing_is_kept(fragment: int) -> None:
    payload = "0123456789é".encode() * (SMALL_MESSAGE_BYTES // 6)
    pieces = [payload[at : at + fragment] for at in range(0, len(payload), fragment)]
    data = b"".join(
        frame(CONTINUATION if number else TEXT, piece, final=number == len(pieces) - 1)
        for number, piece in enumerate(pieces)
    )
    parser, parts, last = Parser(unmask, Asked(MOST), MOST), list[bytes](), False
    for start in range(0, len(data), 65_536):
        parser.feed(data[start : start + 65_536])
        while (event := parser.next()) is not None:
            if event.opcode == TEXT:
                assert event.part
                assert not last
                parts.append(bytes(event.payload))
                last = event.last
    assert last
    assert b"".join(parts) == payload
    # Up to SMALL_MESSAGE_BYTES nobody knows that fragments add up to more.
    assert max(map(len, parts[1:])) <= 65_536


def test_fragments_are_taken_one_at_a_time() -> None:
    """A read of 37,000 fragments of one byte was one turn of the event loop, of 200 ms."""
    parser = Parser(unmask, nothing_large, MOST)
    parser.feed(frame(TEXT, b"a", final=False) + frame(CONTINUATION, b"b", final=False) * 3)
    for _ in range(4):
        assert parser.next() == Incoming(CONTINUATION, b"", last=False)
    assert parser.next() is None
    parser.feed(frame(CONTINUATION, b"c"))
    assert parser.next() == Incoming(TEXT, b"abbbc")


def test_no_answer_allows_more_than_the_most() -> None:
    asked = Asked(1 << 60)
    parser = Parser(unmask, asked, MOST)
    parser.feed(frame(BINARY, length=MOST + 1))
    with pytest.raises(Violation) as caught:
        parser.next()
    assert caught.value.code == rfc.TOO_BIG
    assert asked.heads == []


# The client's side


def unmasked(opcode: int, payload: bytes, final: bool) -> bytes:
    return frame(opcode, payload, final=final, mask=None)


servers_frames = st.builds(
    unmasked,
    st.sampled_from((CONTINUATION, TEXT, TEXT, BINARY, CLOSE, PING, PONG)),
    payloads,
    st.booleans(),
)


def received(data: bytes, cuts: list[int]) -> tuple[list[Incoming], int | None]:
    return events(data, cuts, Parser(None, nothing_large, MOST))


@given(st.lists(servers_frames, max_size=6).map(b"".join), st.lists(st.integers(0, 2000), max_size=8))
def test_a_client_may_cut_anywhere_as_well(data: bytes, cuts: list[int]) -> None:
    assert received(data, cuts) == received(data, [])


@given(st.lists(st.tuples(st.sampled_from((TEXT, BINARY, PING, PONG)), st.text(max_size=200)), max_size=6))
def test_both_sides_receive_the_same(messages: list[tuple[int, str]]) -> None:
    sent = [
        (opcode, text.encode()[:125] if opcode in (PING, PONG) else text.encode())
        for opcode, text in messages
    ]
    to_client = b"".join(rfc.pack_header(opcode, len(data)) + data for opcode, data in sent)
    to_server = b"".join(rfc.pack_masked(opcode, data, b"\x00\x01\xfe\xff") for opcode, data in sent)
    expected = [Incoming(opcode, data) for opcode, data in sent]
    assert received(to_client, []) == (expected, None)
    assert events(to_server, []) == (expected, None)


@pytest.mark.parametrize("mask", [None, b"abcd"])
def test_a_mask_on_the_wrong_side_is_a_violation(mask: bytes | None) -> None:
    parser = Parser(None if mask else unmask, nothing_large, MOST)
    parser.feed(frame(TEXT, b"{}", mask=mask))
    with pytest.raises(Violation) as caught:
        parser.next()
    assert caught.value.code == rfc.PROTOCOL_ERROR


@pytest.mark.parametrize("size", [0, 1, 3, 4, 125, 126, 65_535, 65_536, 200_003])
def test_what_is_packed_is_what_the_rfc_says(size: int) -> None:
    payload = bytes(range(256)) * (size // 256 + 1)
    mask = b"\x00\xff\x80\x01"
    assert rfc.pack_masked(BINARY, payload[:size], mask) == frame(BINARY, payload[:size], mask=mask)
    assert rfc.pack_header(TEXT, size, final=False) == frame(TEXT, length=size, final=False, mask=None)


def test_a_message_of_very_many_fragments_is_put_together_in_time() -> None:
    """With bytes instead of a bytearray, each fragment copied all those before it."""
    parser, count = Parser(None, nothing_large, MOST), 400_000
    parser.feed(unmasked(BINARY, b"a", False) + unmasked(CONTINUATION, b"b", False) * count)
    while parser.next() is not None:
        pass
    parser.feed(unmasked(CONTINUATION, b"c", True))
    assert parser.next() == Incoming(BINARY, b"a" + b"b" * count + b"c")
