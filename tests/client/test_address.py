"""Addresses taken apart: what the resolver, the certificate and the header Host get of them."""

from __future__ import annotations

import pytest

from mhnos_runtime.client.address import Address, parse
from mhnos_runtime.client.errors import ConnectFailed


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:18790", Address("127.0.0.1", 18790, False, "127.0.0.1:18790", "")),
        ("http://desk", Address("desk", 80, False, "desk", "")),
        ("http://desk:80/", Address("desk", 80, False, "desk", "")),
        ("https://Desk.Example/", Address("desk.example", 443, True, "desk.example", "")),
        ("https://desk:8443/user/ann/", Address("desk", 8443, True, "desk:8443", "/user/ann")),
        ("http://[::1]:1/a b", Address("::1", 1, False, "[::1]:1", "/a%20b")),
        ("http://[fe80::1%eth0]", Address("fe80::1%eth0", 80, False, "[fe80::1]", "")),
        ("http://x/a%20b/é", Address("x", 80, False, "x", "/a%20b/%C3%A9")),
        ("http://bücher.example", Address("xn--bcher-kva.example", 80, False, "xn--bcher-kva.example", "")),
        ("http://ann:secret@desk", Address("desk", 80, False, "desk", "")),
    ],
)
def test_parts(url: str, address: Address) -> None:
    assert parse(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "desk",
        "ftp://desk",
        "http://",
        "http://:80",
        "http://a b",
        "http://x:99999",
        "http://x:y",
        "http://[::1",
    ],
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ConnectFailed, match="is not an address") as caught:
        parse(url)
    assert not caught.value.retry
