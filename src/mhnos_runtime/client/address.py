"""The address of a runtime, taken apart for a connection. Knows URLs; opens nothing."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote, urlsplit

from mhnos_runtime.client.errors import ConnectFailed

_PORTS = {"http": 80, "https": 443}
#: What stays as it is in a path: what RFC 3986, 3.3 allows there, and what is encoded already.
_PATH_CHARACTERS = "/%:@!$&'()*+,;=~-._"


class Address(NamedTuple):
    """`host`: a name or an IP address, for the resolver; `authority`: for the header Host; `path`: what the
    runtime is below, without a slash at its end."""

    host: str
    port: int
    secure: bool
    authority: str
    path: str


def parse(url: str) -> Address:
    """Raises ConnectFailed for what is no http or https address."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS[parts.scheme]
        host = _ascii(parts.hostname or "")
    except (ValueError, KeyError):
        raise ConnectFailed(f"{url} is not an address of a runtime", retry=False) from None
    shown = f"[{host.partition('%')[0]}]" if ":" in host else host
    authority = shown if port == _PORTS[parts.scheme] else f"{shown}:{port}"
    path = quote(parts.path, safe=_PATH_CHARACTERS).rstrip("/")
    return Address(host, port, parts.scheme == "https", authority, path)


def _ascii(host: str) -> str:
    """Raises ValueError for what is no name of a host."""
    if not host or any(character <= " " for character in host):
        raise ValueError(host)
    return host if host.isascii() else host.encode("idna").decode()
