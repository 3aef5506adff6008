"""Binary frames: round trips, every cut, every reserved bit."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.wire import frames


def refused(frame: bytes) -> str:
    with pytest.raises(InvalidRequest) as caught:
        frames.unpack(frame)
    return caught.value.code


@given(
    st.sampled_from([frames.STDOUT, frames.STDERR]),
    st.sampled_from([0, frames.REPLAY]),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.binary(),
)
def test_there_and_back(kind: int, flags: int, pid: int, offset: int, payload: bytes) -> None:
    frame = frames.pack_header(kind, flags, pid, offset) + payload
    expected = frames.DataFrame(kind, flags, pid, offset, memoryview(payload))
    assert frames.unpack(frame) == expected
    assert frames.unpack(bytearray(frame)) == expected


def test_the_layout_is_the_documented_one() -> None:
    header = frames.pack_header(frames.STDERR, frames.REPLAY, 1000, 65_537)
    assert header.hex() == "02010000000003e80000000000010001"
    assert len(header) == frames.HEADER_BYTES == 16


def test_every_cut_within_the_header_is_refused() -> None:
    header = frames.pack_header(frames.INPUT, 0, 1000, 0)
    for end in range(len(header)):
        assert refused(header[:end]) == "invalid-message"
    assert not frames.unpack(header).payload


@pytest.mark.parametrize(
    "frame",
    [
        frames.pack_header(0, 0, 1, 0),
        frames.pack_header(4, 0, 1, 0),
        *(frames.pack_header(frames.STDOUT, 1 << bit, 1, 0) for bit in range(1, 8)),
        frames.pack_header(frames.INPUT, frames.REPLAY, 1, 0),
        frames.pack_header(frames.INPUT, 0, 1, 5),
        b"\x01\x00\x00\x01" + bytes(12),
    ],
)
def test_reserved_fields_are_refused(frame: bytes) -> None:
    assert refused(frame) == "invalid-message"


def test_a_payload_has_a_limit_in_each_direction() -> None:
    for kind, limit_bytes in [
        (frames.STDOUT, frames.MAX_OUTPUT_PAYLOAD_BYTES),
        (frames.INPUT, frames.MAX_INPUT_PAYLOAD_BYTES),
    ]:
        header = frames.pack_header(kind, 0, 1, 0)
        assert len(frames.unpack(header + bytes(limit_bytes)).payload) == limit_bytes
        assert refused(header + bytes(limit_bytes + 1)) == "too-large"


def test_10_000_random_frames_give_a_frame_or_one_error() -> None:
    rng = random.Random(30)
    for _ in range(10_000):
        frame = rng.randbytes(rng.randint(0, 40))
        try:
            assert frames.unpack(frame).kind == frame[0]
        except InvalidRequest as error:
            assert error.code == "invalid-message"  # noqa: PT017 - either outcome is right
