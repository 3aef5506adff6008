"""No spelling of a token that the server takes is left in what is kept."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.observe.redact import redact


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("/", "/"),
        ("/?token=secret", "/?token=***"),
        ("/ws?a=1&token=secret&b=2", "/ws?a=1&token=***&b=2"),
        ("ws://h:1/x?token=secret#f", "ws://h:1/x?token=***#f"),
        ("/?TOKEN=secret", "/?TOKEN=***"),
        ("/?%74oken=secret", "/?%74oken=***"),
        ("/?%54%6f%6B%45n=secret", "/?%54%6f%6B%45n=***"),
        ("/?next=%2F%3Ftoken%3Dsecret", "/?next=%2F%3Ftoken%3D***"),
        ("/?token=one&token=two", "/?token=***&token=***"),
        ("/?token=", "/?token="),
        ("/?tokens=5&token_count=6", "/?tokens=5&token_count=6"),
        ("mhnos.v1.1, mhnos.token.secret", "mhnos.v1.1, mhnos.token.***"),
        ("mhnos.token.secret, mhnos.v1.1", "mhnos.token.***, mhnos.v1.1"),
        ("Authorization: Bearer abcdefghijklmnopqrstuvwxyz", "Authorization: Bearer ***"),
        ("send the token as a Bearer header", "send the token as a Bearer header"),
        ("Bad status line 'GET /?token=secret HTTP/1.1'", "Bad status line 'GET /?token=*** HTTP/1.1'"),
    ],
)
def test_redact(text: str, kept: str) -> None:
    assert redact(text) == kept


def spelled(letter: str, how: int) -> str:
    return (letter, letter.upper(), f"%{ord(letter):02x}", f"%{ord(letter.upper()):02X}")[how]


@given(
    spelling=st.lists(st.integers(0, 3), min_size=5, max_size=5),
    token=st.from_regex(r"[A-Za-z0-9_.~-]{32,64}", fullmatch=True),
    before=st.sampled_from(["", "a=1&", "x=%20y&", "token=z&", "&&"]),
    after=st.sampled_from(["", "&b=2", "#end", "&token="]),
)
def test_what_a_server_would_read_as_token_is_gone(
    spelling: list[int], token: str, before: str, after: str
) -> None:
    key = "".join(map(spelled, "token", spelling))
    url = f"ws://host/path?{before}{key}={token}{after}"
    assert any(token in values for values in parse_qs(urlsplit(url).query).values())
    assert token not in redact(url)


@given(st.text(max_size=80))
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    assert redact(redact(text)) == redact(text)
