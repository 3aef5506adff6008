"""The listening sockets of `serve`: which addresses a host means, and who has a port that is taken.

Knows sockets and what /proc says of them; nothing of who connects.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mhnos_runtime.config import ConfigError
from mhnos_runtime.config.address import is_any_address, is_loopback, normal_address

_BACKLOG = 1024
#: How many ports are tried where any will do: the first address gives one that may be taken on the next.
_ATTEMPTS = 64
#: What `localhost` means (RFC 6761, 6.3). Which of them a client tries first is the client's business.
LOOPBACK = ("127.0.0.1", "::1")
#: bind(2), socket(2): this machine does not have the address, or its family.
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
#: A listening socket in /proc/net/tcp (proc(5), net/tcp_states.h).
_LISTENING = "0A"


class Address(NamedTuple):
    """sockaddr: (address, port) or (address, port, flow, scope), with port 0. needed: whether it is an error
    where this machine does not have it."""

    family: int
    sockaddr: tuple[Any, ...]
    needed: bool

    @property
    def ip(self) -> str:
        return str(self.sockaddr[0])


def addresses(host: str) -> list[Address]:
    """What to listen on, the one that the host names first. Raises ConfigError where this machine has none.

    Whoever listens on one loopback address listens on both: where the other were left free, any program of
    this machine could listen there, and a client that asks for localhost would show it the token.
    """
    own = normal_address(host)
    found = [] if own is None and is_loopback(host) else _look_up(host)
    if not found or any(is_loopback(each.ip) or is_any_address(each.ip) for each in found):
        held = {each.ip for each in found} | {
            loopback
            for each in found
            for loopback, wildcard in zip(LOOPBACK, ("0.0.0.0", "::"), strict=True)
            if each.ip == wildcard
        }
        found += [_address(ip, needed=False) for ip in LOOPBACK if ip not in held]
    return found


def _look_up(host: str) -> list[Address]:
    try:
        rows = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigError(f"host {host!r} is no address of this machine: {error.strerror}") from error
    return list(dict.fromkeys(Address(row[0], row[4], needed=True) for row in rows))


def _address(ip: str, *, needed: bool) -> Address:
    if ":" in ip:
        return Address(socket.AF_INET6, (ip, 0, 0, 0), needed)
    return Address(socket.AF_INET, (ip, 0), needed)


def listen(host: str, port: int) -> list[socket.socket]:
    """Listening sockets on one port of each address; port 0: one that is free on all of them. Raises
    ConfigError that says which is taken, and by whom where this user may know it."""
    wanted, attempts = addresses(host), 1 if port else _ATTEMPTS
    while True:
        attempts -= 1
        try:
            opened = _open_all(wanted, port)
        except _Taken:
            if not attempts:
                raise
            continue
        if opened:
            return opened
        raise ConfigError(f"host {host!r} is no address of this machine", hint="choose another with --host")


def _open_all(wanted: Sequence[Address], port: int) -> list[socket.socket]:
    opened: list[socket.socket] = []
    try:
        for each in wanted:
            _open(each, opened[0].getsockname()[1] if opened else port, opened)
    except ConfigError:
        for sock in opened:
            sock.close()
        raise
    return opened


class _Taken(ConfigError):
    """Another socket listens there."""


def _open(address: Address, port: int, opened: list[socket.socket]) -> None:
    try:
        sock = socket.socket(address.family, socket.SOCK_STREAM)
    except OSError as error:
        _not_here(address, port, error)
        return
    opened.append(sock)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if address.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        sock.bind((address.ip, port, *address.sockaddr[2:]))
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        _not_here(address, port, error, opened)
        opened.remove(sock)
        sock.close()


def _not_here(address: Address, port: int, error: OSError, opened: Sequence[socket.socket] = ()) -> None:
    """Pass over an address that this machine need not have; else raise ConfigError."""
    if error.errno in _NOT_HERE and not address.needed:
        return
    kind = _Taken if error.errno == errno.EADDRINUSE else ConfigError
    by = _holder(port, opened) if kind is _Taken else ""
    raise kind(
        f"cannot listen on {address.ip} port {port}: {error.strerror}{by}",
        hint="stop what uses it, or choose another with --port or MHNOS_RUNTIME_PORT (0: any free one)",
    ) from error


def _holder(port: int, own: Sequence[socket.socket]) -> str:
    """ " by process 123 (name) of user", as far as /proc lets this user see it."""
    ours = {os.fstat(sock.fileno()).st_ino for sock in own}
    for inode, uid in _listeners(port):
        if inode not in ours:
            return f" by {_process_with(f'socket:[{inode}]') or 'a process'} of user {_user(uid)}"
    return ""


def _listeners(port: int) -> Iterator[tuple[int, int]]:
    """(inode, uid) of what listens on this port, on whatever address."""
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    yield int(fields[9]), int(fields[7])


def _process_with(target: str) -> str:
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(link) == target:
                folder = link.parents[1]
                # A process names itself as it likes.
                name = (folder / "comm").read_text(errors="replace").strip()
                return f"process {folder.name} ({name})"
    return ""


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
