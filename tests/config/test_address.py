"""One spelling for every host and origin; what is malformed is None."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.config.address import (
    HostPort,
    is_any_address,
    is_loopback,
    normal_host,
    parse_host,
    parse_origin,
)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("localhost", "localhost", None),
        ("LocalHost.:80", "localhost", 80),
        ("127.0.0.1:18790", "127.0.0.1", 18790),
        ("[::1]", "::1", None),
        ("[0:0::0:1]:1", "::1", 1),
        ("[::ffff:127.0.0.1]:1", "127.0.0.1", 1),
        ("my_box.lan:0", "my_box.lan", 0),
        ("xn--bcher-kva.example", "xn--bcher-kva.example", None),
    ],
)
def test_host(text: str, host: str, port: int | None) -> None:
    assert parse_host(text) == HostPort(host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "a b",
        "a:",
        "a:b",
        "a:65536",
        "a:-1",
        "a:1:2",
        "::1",
        "[::1",
        "::1]",
        "[::g]",
        "[a]",
        "[127.0.0.1",
        "user@a",
        "a/b",
        "a?b",
        "a#b",
        "127.0.0.1%a.example",
        "bücher.example",
        "a\n",
        "a\r\nb",
        "-a",
        ".",
        "a,b",
        "a:1 ",
        "x" * 300,
        "*",
        "[::1]x",
        "[::1]:",
        "a:١",
    ],
)
def test_malformed_host(text: str) -> None:
    assert parse_host(text) is None


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("null", "null"),
        ("http://localhost:18790", "http://localhost:18790"),
        ("HTTP://LocalHost:80", "http://localhost"),
        ("https://x.org:443", "https://x.org"),
        ("https://x.org:80", "https://x.org:80"),
        ("http://[::0:1]:1", "http://[::1]:1"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
    ],
)
def test_origin(text: str, normal: str) -> None:
    assert parse_origin(text) == normal


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x.org",
        "http://",
        "http:///",
        "http://x.org/",
        "http://x.org/a",
        "http://u@x.org",
        "http://x.org?",
        "NULL",
        "http://x.org http://y.org",
        "http://x.org, http://y.org",
        "*",
        "http://*",
        "://x",
        "1http://x",
        "http://x:y",
    ],
)
def test_malformed_origin(text: str) -> None:
    assert parse_origin(text) is None


@given(st.ip_addresses(), st.one_of(st.none(), st.integers(0, 65535)))
def test_addresses_are_read_back(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int | None
) -> None:
    host = normal_host(str(address).upper())
    assert host is not None
    entry = HostPort(host, port)
    assert parse_host(str(entry)) == entry


@given(st.text(max_size=60))
def test_nothing_raises_and_the_normal_form_is_stable(text: str) -> None:
    host, origin = parse_host(text), parse_origin(text)
    assert host is None or parse_host(str(host)) == host
    assert origin is None or parse_origin(origin) == origin


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("a.localhost", True),
        ("127.0.0.1", True),
        ("127.255.0.9", True),
        ("::1", True),
        ("localhost.evil.example", False),
        ("evillocalhost", False),
        ("127.0.0.1.nip.io", False),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("127.1", False),
        ("2130706433", False),
        ("0x7f.1", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_any_address() -> None:
    assert is_any_address("0.0.0.0")
    assert is_any_address("::")
    assert not is_any_address("::1")
