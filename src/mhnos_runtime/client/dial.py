"""A blocking connection to an address: TCP, and TLS where the address asks for it. Knows sockets and
certificates; not what is said over them."""

from __future__ import annotations

import functools
import os
import re
import socket
import sys
import time
from typing import TYPE_CHECKING, TypeAlias

from mhnos_runtime.client.address import Address
from mhnos_runtime.client.errors import ConnectFailed

if TYPE_CHECKING:
    import ssl

#: True: certificates are checked against those that the system trusts, or SSL_CERT_FILE; False: not at all.
SslOption: TypeAlias = "ssl.SSLContext | bool"

_NUMBER = re.compile(r"\[Errno (\d+)\]")

STARTS_ONE = "is it running? `mhnos-runtime serve` starts one here"


def dial(address: Address, until: float, option: SslOption = True) -> socket.socket:
    """Connect to the first of the host's addresses that answers, each of which gets its share of the time.
    until: of time.monotonic(). Raises OSError."""
    places = socket.getaddrinfo(address.host.encode(), address.port, type=socket.SOCK_STREAM)
    for number, (family, kind, protocol, _, place) in enumerate(places):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(left(until) / (len(places) - number))
            connection.connect(place)
            break
        except BaseException as error:
            connection.close()
            if number == len(places) - 1 or not isinstance(error, OSError):
                raise
    try:
        connection.settimeout(left(until))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _secured(connection, address, option) if address.secure else connection
    except BaseException:
        connection.close()
        raise


def left(until: float) -> float:
    """Seconds until then. Raises TimeoutError when it is past."""
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def context(option: SslOption = True) -> ssl.SSLContext:
    """What TLS is done with."""
    if not isinstance(option, bool):
        return option
    return _made_context(option, *map(os.environ.get, ("SSL_CERT_FILE", "SSL_CERT_DIR")))


@functools.lru_cache(maxsize=4)
def _made_context(checked: bool, *_trusted: str | None) -> ssl.SSLContext:
    """One for each set of certificates: to read the system's takes 20 ms, on the event loop too."""
    import ssl

    made = ssl.create_default_context()
    if not checked:
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    return made


def _secured(connection: socket.socket, address: Address, option: SslOption) -> socket.socket:
    return context(option).wrap_socket(connection, server_hostname=certified_name(address))


def certified_name(address: Address) -> str:
    """What the certificate has to be for: an IPv6 address without its zone."""
    return address.host.partition("%")[0]


def failed(url: str, error: OSError, what: str = "connect to") -> ConnectFailed:
    """What kept a connection from being made, in words. what: was to be done with the address."""
    if is_untrusted(error):
        return ConnectFailed(
            f"cannot {what} {url}: its certificate is not trusted, or is of another name",
            hint="with a certificate of your own: SSL_CERT_FILE=cert.pem, and an address that it names",
        )
    return ConnectFailed(f"cannot {what} {url}: {reason(error)}", hint=STARTS_ONE)


def is_untrusted(error: OSError) -> bool:
    """Whether it is the peer's certificate that is not good. ssl is there if TLS was tried."""
    tls = sys.modules.get("ssl")
    return tls is not None and isinstance(error, tls.SSLCertVerificationError)


def is_nothing_yet(error: OSError) -> bool:
    """Whether a socket that does not wait has nothing to read at the moment."""
    tls = sys.modules.get("ssl")
    return isinstance(error, BlockingIOError) or (tls is not None and isinstance(error, tls.SSLWantReadError))


def reason(error: BaseException) -> str:
    """The system's own words where there are any: those of asyncio repeat the address, or all that a name
    has."""
    number = getattr(error, "errno", None)
    if number is None and (first := _NUMBER.search(str(error))):
        number = int(first[1])
    foreign = isinstance(error, socket.gaierror) or type(error).__module__ == "ssl"
    if isinstance(number, int) and number > 0 and not foreign:
        return os.strerror(number)
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
