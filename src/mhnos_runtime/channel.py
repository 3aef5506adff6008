"""The local socket between server and supervisor: whole messages, JSON or two-field notices, with
descriptors.

Knows framing only; what the messages mean is known at its two ends. Neither end ever blocks on it.
"""

from __future__ import annotations

import array
import errno
import json
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from mhnos_runtime.bounds import MESSAGE_BYTES

#: "There is output": supervisor to server, once after the server has said that it waits.
OUTPUT = b"O"
#: "The hold has moved": server to supervisor, when a process waits for that.
MOVED = b"M"
#: "A key for this terminal is on its way": server to supervisor, before it is written.
TYPED = b"T"
#: "My event loop turns": server to supervisor, once a second; pid is 0.
ALIVE = b"A"

_NOTICE = struct.Struct("=cI")
#: With one message: a start's own 16 or so, and those that the program is handed.
MAX_DESCRIPTORS = 64
MAX_MESSAGE_BYTES = MESSAGE_BYTES
#: With so many messages that the other end has not taken, an end may stop to listen to it.
HIGH_WATER_MESSAGES = 256
#: Why a message cannot be sent now, though the socket has room: the kernel has no memory, or too many of this
#: user's descriptors are on their way, which may be any process's doing (sendmsg(2), unix(7)).
_FOR_A_WHILE = frozenset({errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS})
#: When to try again then.
RETRY_SECONDS = 0.05
#: Of a send buffer, what the kernel takes for itself.
_KERNELS_BYTES = 4096
ANCILLARY_BYTES = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)


#: What goes with a message: descriptors, or how to find those that are right when it is sent. After a restart
#: hundreds of messages may wait, and for so many there need not be duplicates.
Descriptors: TypeAlias = Sequence[int] | Callable[[], Sequence[int]]


class Message(NamedTuple):
    """One message. kind is one of the four above, with pid, or b"" with body and descriptors (the receiver
    owns them). whole: whether all descriptors came; those for which the receiver has no room do not
    (unix(7))."""

    kind: bytes
    pid: int
    body: dict[str, Any]
    descriptors: list[int]
    whole: bool = True


class Disconnected(Exception):
    """The other end is gone."""


class NoMessage(ValueError):
    """What has arrived is no message of this channel; what came with it is closed."""


_encoder = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)


def encode(body: dict[str, Any]) -> bytes:
    """As it is sent. Of all characters only quotes, backslashes (2 bytes) and those below U+0020 (up to 6)
    are escaped; halves of surrogate pairs, which are no UTF-8, pass as `json.loads` reads them."""
    return _encoder.encode(body).encode("utf-8", "surrogatepass")


class Channel:
    """One end of the control socket.

    What cannot be sent at once waits in `pending`, in order; the owner calls `flush` when the socket is
    writable, or after RETRY_SECONDS where it is `postponed`: it is writable all the time then. It is bounded
    by what is under way: one notice of each kind and one exit a process, one answer a request; an owner that
    answers requests of a peer that may be hostile reads none while `congested`.
    `events` is the owner's note of what it watches the socket for.
    """

    events = 0
    postponed = False

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        room = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) - _KERNELS_BYTES
        self._most_bytes = min(MAX_MESSAGE_BYTES, room)
        self._buffer = bytearray(MAX_MESSAGE_BYTES)
        self._buffers = (self._buffer,)
        self.pending: deque[tuple[bytes, Descriptors]] = deque()
        self._notices: set[bytes] = set()

    @staticmethod
    def pair() -> tuple[socket.socket, socket.socket]:
        """Raises OSError."""
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for sock in pair:
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) < MAX_MESSAGE_BYTES + _KERNELS_BYTES:
                # Somebody has lowered net.core.wmem_default. The kernel takes this twice (socket(7)).
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_MESSAGE_BYTES)
        return pair

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()
        while self.pending:
            _give_back(self.pending.popleft()[1])

    @property
    def congested(self) -> bool:
        """Whether the other end leaves much unread."""
        return len(self.pending) >= HIGH_WATER_MESSAGES

    def notify(self, kind: bytes, pid: int) -> None:
        """Send a notice, unless the same one waits already."""
        notice = _NOTICE.pack(kind, pid)
        if self.pending:
            if notice in self._notices:
                return
            self._notices.add(notice)
        self._send(notice, ())

    def send(self, body: dict[str, Any], descriptors: Descriptors = ()) -> None:
        """Send JSON and descriptors, which stay the caller's. Raises ValueError for too long a message,
        OSError where it has to wait and descriptors cannot be duplicated for that."""
        data = encode(body)
        if len(data) > self._most_bytes:
            raise ValueError(f"{len(data)} bytes in one message, {self._most_bytes} are allowed")
        self._send(data, descriptors)

    def _send(self, data: bytes, descriptors: Descriptors) -> None:
        if self.pending or not self._try(data, descriptors):
            self.pending.append((data, descriptors if callable(descriptors) else duplicates(descriptors)))

    def flush(self) -> None:
        while self.pending and self._try(*self.pending[0]):
            data, descriptors = self.pending.popleft()
            self._notices.discard(data)
            _give_back(descriptors)

    def _try(self, data: bytes, descriptors: Descriptors) -> bool:
        fds = descriptors() if callable(descriptors) else descriptors
        self.postponed = False
        try:
            if fds:
                socket.send_fds(self._sock, [data], fds)
            else:
                self._sock.send(data)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno == errno.EBADF and fds:
                # One of them is closed: the trouble of one process, not of all. The other end sees that none
                # came.
                return self._try(data, ())
            self.postponed = error.errno in _FOR_A_WHILE
            if not self.postponed:
                raise Disconnected from error
            return False
        return True

    def receive(self) -> Message | None:
        """The next message that has arrived, or None. Raises Disconnected at the end of the other side,
        NoMessage for what is none.

        One a turn, so that neither a busy peer keeps the loop from everything else, nor a single message
        costs a second call to find that there is no other.
        """
        try:
            size, ancillary, flags, _address = self._sock.recvmsg_into(
                self._buffers, ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return None
        except OSError as error:
            raise Disconnected from error
        if not size:
            raise Disconnected
        descriptors = descriptors_of(ancillary)
        if size == _NOTICE.size and not descriptors:
            kind, pid = _NOTICE.unpack_from(self._buffer)
            return Message(kind, pid, {}, [])
        try:
            if flags & socket.MSG_TRUNC:
                raise NoMessage(f"more than {MAX_MESSAGE_BYTES} bytes")
            whole = not flags & socket.MSG_CTRUNC
            return Message(b"", 0, _body(self._buffer[:size]), descriptors, whole)
        except NoMessage:
            _give_back(descriptors)
            raise


def _body(data: bytearray) -> dict[str, Any]:
    """Raises NoMessage for what is no JSON object, or nested deeper than the interpreter follows."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise NoMessage(str(error)) from None
    if not isinstance(body, dict):
        raise NoMessage("not a JSON object")
    return body


def duplicates(descriptors: Sequence[int]) -> list[int]:
    """All of them, or none. Raises OSError."""
    made: list[int] = []
    try:
        for fd in descriptors:
            made.append(os.dup(fd))  # noqa: PERF401 - those made so far are closed when one fails
    except OSError:
        _give_back(made)
        raise
    return made


def _give_back(descriptors: Descriptors) -> None:
    if not callable(descriptors):
        for fd in descriptors:
            os.close(fd)


def descriptors_of(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """What came by SCM_RIGHTS (unix(7))."""
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)
