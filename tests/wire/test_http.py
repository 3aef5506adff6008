"""HTTP as a client speaks it, as a pure machine: wherever an answer is cut, it is the same one or none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.wire import http
from mhnos_runtime.wire.http import MAX_HEAD_BYTES, Answer, BadAnswer

MOST = 1000


def fed(data: bytes, at_once: int = 1 << 20, *, ends: bool = True) -> Answer:
    answer = Answer(MOST)
    for start in range(0, len(data), at_once):
        answer.feed(data[start : start + at_once])
    if ends and not answer.done:
        answer.end()
    return answer


CHUNKED = b"HTTP/1.1 200 O\r\nTransfer-Encoding: chunked\r\n\r\n"
GOOD = [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", 200, b"ab", b""),
    (b"HTTP/1.0 200 \r\nContent-Length: 2\r\ncontent-length:2\r\n\r\nabc", 200, b"ab", b"c"),
    (b"HTTP/1.1 200\r\n\r\nuntil the end", 200, b"until the end", b""),
    (b"HTTP/1.1 204 No\r\n\r\n", 204, b"", b""),
    (b"HTTP/1.1 304 No\r\nContent-Length: 7\r\n\r\n", 304, b"", b""),
    (b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\n\x81\0", 101, b"", b"\x81\0"),
    (b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 103 E\r\nX: y\r\n\r\nHTTP/1.1 401 No\r\n\r\n", 401, b"", b""),
    (
        CHUNKED + b"2;x=y\r\nab\r\nA\r\n0123\r\n6789\r\n0\r\nX: y\r\n\r\nrest",
        200,
        b"ab0123\r\n6789",
        b"rest",
    ),
]


@pytest.mark.parametrize("at_once", [1, 2, 7, 1 << 20])
@pytest.mark.parametrize(("data", "status", "body", "rest"), GOOD)
def test_a_good_answer(data: bytes, status: int, body: bytes, rest: bytes, at_once: int) -> None:
    answer = fed(data, at_once)
    assert answer.head is not None
    assert (answer.head.status, bytes(answer.body), answer.done) == (status, body, True)
    assert answer.rest == rest


BAD = [
    (b"GET / HTTP/1.1\r\n\r\n", "is not HTTP"),
    (b"\r\nHTTP/1.1 200 O\r\n\r\n", "is not HTTP"),
    (b"HTTP/1.1 20 O\r\n\r\n", "is not HTTP"),
    (b"HTTP/1.1 2000\r\n\r\n", "is not HTTP"),
    (b"HTTP/1.12 200\r\n\r\n", "is not HTTP"),
    (b"HTTP/1.1 200 O\r\nX y\r\n\r\n", "a header that is none"),
    (b"HTTP/1.1 200 O\r\nX : y\r\n\r\n", "a header that is none"),
    (b"HTTP/1.1 200 O\r\nX: y\r\n z\r\n\r\n", "a header that is none"),
    (b"HTTP/1.1 200 O\r\nX: a\0b\r\n\r\n", "a header that is none"),
    (b"HTTP/1.1 200 O\r\nX: a\nY: b\r\n\r\n", "a header that is none"),
    (b"HTTP/1.1 200 O\r\n", "ended before"),
    (b"HTTP/1.1 200 O\r\nContent-Length: 3\r\n\r\nab", "ended before"),
    (b"HTTP/1.1 200 O\r\nContent-Length: 1001\r\n\r\n", "more than 1000 bytes"),
    (b"HTTP/1.1 200 O\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "Content-Length"),
    (b"HTTP/1.1 200 O\r\nContent-Length: -1\r\n\r\n", "Content-Length"),
    (b"HTTP/1.1 200 O\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", "Content-Length"),
    (b"HTTP/1.1 200 O\r\n\r\n" + bytes(1001), "more than 1000 bytes"),
    (b"HTTP/1.1 200 O\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "other than chunked"),
    (CHUNKED + b"x\r\n", "without a size"),
    (CHUNKED + b"-1\r\n", "without a size"),
    (CHUNKED + b"2\r\nabc\r\n", "does not end where it says"),
    (CHUNKED + b"3e9\r\n", "more than 1000 bytes"),
    (CHUNKED + b"2;" + bytes(2000), "a line of more than"),
    (CHUNKED + b"2\r\nab\r\n", "ended before"),
    (CHUNKED + b"0\r\n" + b"X: y\r\n" * 20_000, "a trailer that does not end"),
    (CHUNKED + b"0\r\n" + b"X" * 100_000, "a line of more than"),
    (b"HTTP/1.1 200 O\r\nX: " + b"y" * MAX_HEAD_BYTES, "a head of more than"),
    (b"HTTP/1.1 200 O\r\nX: " + b"y" * MAX_HEAD_BYTES + b"\r\n\r\n", "a head of more than"),
    (b"HTTP/1.1 102 P\r\n\r\n" * 5000, "a head of more than"),
]


@pytest.mark.parametrize("at_once", [1 << 10, 1 << 20])
@pytest.mark.parametrize(("data", "text"), BAD)
def test_a_bad_answer(data: bytes, text: str, at_once: int) -> None:
    with pytest.raises(BadAnswer, match=text):
        fed(data, at_once)


def test_what_is_no_http_shows_in_its_first_byte() -> None:
    with pytest.raises(BadAnswer):
        Answer(MOST).feed(b"S")


@given(st.binary(max_size=200), st.sampled_from([b"", b"HTTP/1.1 200 O\r\n", CHUNKED]), st.integers(1, 9))
def test_any_bytes_are_an_answer_or_a_bad_one(data: bytes, before: bytes, at_once: int) -> None:
    try:
        answer = fed(before + data, at_once)
    except BadAnswer:
        return
    assert answer.done
    assert len(answer.body) <= MOST


def test_a_request() -> None:
    made = http.request("POST", "/x", {"Host": "h", "Content-Length": "2"}, b"ab")
    assert made == b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab"


@pytest.mark.parametrize(
    ("target", "value"),
    [("/", "a\r\nX: y"), ("/", "a\nb"), ("/", "a\0"), ("/ \r\nX: y", "a"), ("/", "\u0101")],
)
def test_a_request_has_no_more_lines_than_it_is_given(target: str, value: str) -> None:
    with pytest.raises(ValueError, match=r"control|latin-1"):
        http.request("GET", target, {"Authorization": value})


def test_items_of_a_list_are_found_in_all_of_its_headers() -> None:
    head = fed(b"HTTP/1.1 200 O\r\nConnection: a, Upgrade\r\nconnection:\tB\r\n\r\n").head
    assert head is not None
    assert head.items("connection") == ["a", "upgrade", "b"]
    assert head.get("connection") == "a, Upgrade"
    assert head.get("x") is None
