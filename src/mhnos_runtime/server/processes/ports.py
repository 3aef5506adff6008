"""Ports of loopback for processes: sockets that listen before a process starts, and free numbers. Knows no
kind."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from mhnos_runtime.errors import InvalidRequest, LimitReached, MhnosError, StartFailed
from mhnos_runtime.launch import FIRST_HANDED
from mhnos_runtime.process.ready import LOOPBACK
from mhnos_runtime.process.template import PORT_NAME

#: Sockets and ports of one process.
MOST = 16
#: Below it only root may listen (ip(7)), which the runtime may be, and its clients are not.
FIRST_PORT = 1024
_BACKLOG = 1024


@dataclass
class Handed:
    """The descriptors that a process is handed, in order, and its ports. To be closed once it has them.

    sockets: number of the descriptor in the process, by name; ports: number of the port, by name of a port or
    a socket.
    """

    descriptors: list[int] = field(default_factory=list)
    sockets: dict[str, int] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)

    def add(self, fd: int) -> int:
        """Hand a descriptor over, which this closes; return its number in the process."""
        self.descriptors.append(fd)
        return FIRST_HANDED + len(self.descriptors) - 1

    def close(self) -> None:
        while self.descriptors:
            with contextlib.suppress(OSError):
                os.close(self.descriptors.pop())


def check_names(asked: Mapping[str, int]) -> None:
    """Raises InvalidRequest for too many names, a bad name, and a number that is no port."""
    if len(asked) > MOST:
        raise InvalidRequest(f"ports: {len(asked)} are too many; at most {MOST}")
    for name, number in asked.items():
        if not PORT_NAME.match(name):
            raise InvalidRequest(f"ports: {name!r} is not a name; expected letters, digits, '.', '_' or '-'")
        if number and not FIRST_PORT <= number < 65536:
            raise InvalidRequest(f"ports: {name} is {number}; expected 0 for any, or {FIRST_PORT} to 65535")


def listen(number: int) -> socket.socket:
    """A socket that listens on this port of loopback, 0 for any. Raises StartFailed (port-in-use) and
    LimitReached (start-failed)."""
    sock = _socket()
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((LOOPBACK, number))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise _refusal(number, error) from error
    return sock


def free(number: int) -> int:
    """A free port, this one if it is not 0, for a program that listens itself. Raises as `listen`."""
    with _socket() as sock:
        # Without this, connections in TIME_WAIT would count as use (socket(7)).
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((LOOPBACK, number))
            # Binding alone succeeds beside a socket that listens with the same option.
            sock.listen(1)
        except OSError as error:
            raise _refusal(number, error) from error
        found: int = sock.getsockname()[1]
        return found


def _socket() -> socket.socket:
    try:
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    except OSError as error:
        raise LimitReached(f"no socket for another process: {error.strerror}", code="start-failed") from error


def _refusal(number: int, error: OSError) -> MhnosError:
    if error.errno == errno.EADDRINUSE:
        return StartFailed(
            f"port {number} is in use", code="port-in-use", hint="ask for another one, or for 0: any free one"
        )
    return StartFailed(f"port {number} cannot be had: {error.strerror}")
