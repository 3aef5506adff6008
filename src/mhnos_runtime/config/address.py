"""The grammar of hosts and web origins in Host and Origin headers and in settings.

Pure: text in, values out. Does not know which of them are allowed.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}

# A registered name as browsers send it: ASCII labels, after IDNA (RFC 3986, 3.2.2). DNS has no underscore,
# but container networks commonly do.
_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]{0,252}[a-z0-9_])?\Z")
_HOST_PORT = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]/?#@%\s]+)(?::([0-9]{1,5}))?\Z")
_ORIGIN = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]{0,31})://([^/?#@\s]+)\Z")


class HostPort(NamedTuple):
    """A host in canonical form (lower case, IPv6 without brackets), and the port if given."""

    host: str
    port: int | None

    def __str__(self) -> str:
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port is None else f"{name}:{self.port}"


def normal_address(text: str) -> str | None:
    """The canonical form of an IP address (no zone; IPv4 mapped into IPv6 as IPv4), or None."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def normal_host(text: str) -> str | None:
    """The canonical form of a host name or address, or None."""
    address = normal_address(text)
    if address is not None:
        return address
    name = text.lower().removesuffix(".")
    return name if _NAME.match(name) else None


def parse_host(text: str) -> HostPort | None:
    """A Host header's value (RFC 9110, 7.2), or None when it is malformed."""
    match = _HOST_PORT.match(text)
    if match is None:
        return None
    bracketed = match[1].startswith("[")
    host = normal_address(match[1][1:-1]) if bracketed else normal_host(match[1])
    port = None if match[2] is None else int(match[2])
    if host is None or (port is not None and port > 65535):
        return None
    return HostPort(host, port)


def parse_origin(text: str) -> str | None:
    """The canonical form of a serialised origin (RFC 6454, 6.2): lower case, no default port; "null"
    stays."""
    if text == "null":
        return text
    match = _ORIGIN.match(text)
    where = parse_host(match[2]) if match else None
    if match is None or where is None:
        return None
    scheme = match[1].lower()
    port = None if where.port == DEFAULT_PORTS.get(scheme) else where.port
    return f"{scheme}://{HostPort(where.host, port)}"


def is_loopback(host: str) -> bool:
    """Whether a host in canonical form can only mean this machine.

    Browsers never look up localhost and names under it in DNS (RFC 6761, 6.3), so that an attacker's record
    cannot change them.
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def is_any_address(host: str) -> bool:
    """Whether a host in canonical form is the wildcard of IPv4 or IPv6."""
    return host in ("0.0.0.0", "::")
