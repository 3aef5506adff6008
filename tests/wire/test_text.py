"""Text in pieces. In the first server a character split between two chunks became U+FFFD."""

from __future__ import annotations

import itertools

from hypothesis import example, given
from hypothesis import strategies as st

from mhnos_runtime.wire.messages import Stream
from mhnos_runtime.wire.text import CARRY_BYTES, PipeInput, SurrogateJoiner, TextDecoder

# Bytes that make UTF-8 go wrong in every way: cut, overlong, surrogates, beyond the last character, stray.
pieces = st.sampled_from(
    [b"a", "é".encode(), "€".encode(), "\U0001f600".encode(), b"\xc0\x80", b"\xe0\x80", b"\xed\xa0\x80",
     b"\xf0\x90", b"\xf4\x90\x80\x80", b"\xf0\x9f\x98", b"\xe2\x82", b"\xff", b"\x80", b"\xc3"]
)  # fmt: skip
streams = st.lists(pieces, max_size=12).map(b"".join) | st.binary(max_size=40)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(bounds)]


@given(streams, st.lists(st.integers(0, 100), max_size=8))
def test_pieces_join_to_what_the_whole_decodes_to(data: bytes, cuts: list[int]) -> None:
    decoder = TextDecoder()
    text = "".join(decoder.feed("stdout", memoryview(piece)) for piece in split(data, cuts))
    assert text + decoder.flush("stdout") == data.decode("utf-8", "replace")


@given(streams)
@example("aé€\U0001f600".encode())
def test_split_at_every_byte(data: bytes) -> None:
    for cut in range(len(data) + 1):
        decoder = TextDecoder()
        text = decoder.feed("stdout", data[:cut]) + decoder.feed("stdout", data[cut:])
        assert text + decoder.flush("stdout") == data.decode("utf-8", "replace")


@given(streams)
def test_attaching_from_any_offset_continues_the_text(data: bytes) -> None:
    for cut in range(len(data) + 1):
        first, second = TextDecoder(), TextDecoder()
        text = first.feed("stdout", data[:cut])
        second.restore("stdout", data[max(0, cut - CARRY_BYTES) : cut])
        text += second.feed("stdout", data[cut:]) + second.flush("stdout")
        assert text == data.decode("utf-8", "replace")


def test_restore_forgets_what_was_carried() -> None:
    decoder = TextDecoder()
    decoder.feed("stdout", b"\xe2")
    decoder.restore("stdout", b"")
    assert decoder.feed("stdout", b"a") == "a"


@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), streams), max_size=8))
def test_streams_do_not_mix(chunks: list[tuple[Stream, bytes]]) -> None:
    decoder = TextDecoder()
    texts: dict[Stream, str] = {"stdout": "", "stderr": ""}
    for stream, data in chunks:
        texts[stream] += decoder.feed(stream, data)
    for stream, text in texts.items():
        data = b"".join(data for of, data in chunks if of == stream)
        assert text + decoder.flush(stream) == data.decode("utf-8", "replace")


def test_a_flush_gives_what_is_left_once() -> None:
    decoder = TextDecoder()
    assert decoder.feed("stderr", b"\xe2\x82") == ""
    assert (decoder.flush("stdout"), decoder.flush("stderr"), decoder.flush("stderr")) == ("", "\ufffd", "")


@given(st.text(st.characters(exclude_categories=()), max_size=20), st.lists(st.integers(0, 100), max_size=6))
def test_writes_cut_between_halves_of_a_pair_join(text: str, cuts: list[int]) -> None:
    """JavaScript cuts strings by 16-bit units."""
    units = text.encode("utf-16-le", "surrogatepass")
    joiner = SurrogateJoiner()
    sent = [piece.decode("utf-16-le", "surrogatepass") for piece in split(units, [cut * 2 for cut in cuts])]
    got = b"".join(joiner.feed(piece) for piece in sent) + joiner.flush()
    assert got == units.decode("utf-16-le", "replace").encode()


def test_half_a_pair_waits_and_is_given_up_when_it_cannot_be_completed() -> None:
    joiner = SurrogateJoiner()
    assert [joiner.feed(text) for text in ("a\ud83d", "", "\ude00b")] == [b"a", b"", "\U0001f600b".encode()]
    assert [joiner.feed(text) for text in ("\ud83d", "\ud83d", "x")] == [
        b"",
        "\ufffd".encode(),
        "\ufffdx".encode(),
    ]
    assert joiner.feed("\ude00") == "\ufffd".encode()
    assert (joiner.feed("\ud83d"), joiner.flush(), joiner.flush()) == (b"", "\ufffd".encode(), b"")


@given(
    st.lists(st.sampled_from([b"\r", b"\n", b"a"]), max_size=12).map(b"".join),
    st.lists(st.integers(0, 20), max_size=6),
)
def test_line_ends_on_pipes_however_they_are_cut(data: bytes, cuts: list[int]) -> None:
    line_ends = PipeInput()
    got = b"".join(line_ends.feed(piece) for piece in split(data, cuts))
    assert got == data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def test_enter_is_a_line_end_at_once() -> None:
    line_ends = PipeInput()
    assert [line_ends.feed(data) for data in (b"x\r", b"\r", b"\n", b"\n")] == [b"x\n", b"\n", b"", b"\n"]
