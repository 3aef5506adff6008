"""The local socket between server and supervisor: whole messages, JSON or two-field notices, with
descriptors.

Knows framing only, not what messages mean. Neither end ever blocks on it.
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

#: "There is output": supervisor to server, once after the server has parked as a reader.
OUTPUT = b"O"
#: "The hold has moved": server to supervisor, when a process waits for that.
MOVED = b"M"
#: "Somebody types into this terminal": server to supervisor, before the key is written.
TYPED = b"T"
#: "My event loop turns": server to supervisor, once a second; pid is 0.
ALIVE = b"A"

_NOTICE = struct.Struct("=cI")
#: With one message: some 16 of a start itself, and those for the program.
MAX_DESCRIPTORS = 64
MAX_MESSAGE_BYTES = MESSAGE_BYTES
#: Unread messages at which an end may stop reading from the other: the high-water mark.
HIGH_WATER_MESSAGES = 256
#: Errors after which a message is sent later, though the socket has room: the kernel lacks memory, or too
#: many descriptors of this user are in flight, which any process can cause (sendmsg(2), unix(7)).
_FOR_A_WHILE = frozenset({errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS})
#: The pause before the next attempt.
RETRY_SECONDS = 0.05
#: Bytes of a send buffer that the kernel uses itself.
_KERNELS_BYTES = 4096
ANCILLARY_BYTES = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)


#: Descriptors of a message, or a function that finds them when it is sent: after a restart hundreds of
#: messages may wait, which would need as many duplicates.
Descriptors: TypeAlias = Sequence[int] | Callable[[], Sequence[int]]


class Message(NamedTuple):
    """One message. kind: one of the four above, with pid, or b"" with body and descriptors (the receiver
    owns them). whole: whether all descriptors came; the kernel drops those that the receiver has no room for
    (unix(7))."""

    kind: bytes
    pid: int
    body: dict[str, Any]
    descriptors: list[int]
    whole: bool = True


class Disconnected(Exception):
    """The other end is gone."""


class NoMessage(ValueError):
    """The data is not a message of this channel. Its descriptors are closed."""


_encoder = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)


def encode(body: dict[str, Any]) -> bytes:
    """The bytes of a message. Only quotes and backslashes (2 bytes) and characters below U+0020 (up to 6) are
    escaped. Lone surrogates are encoded as they are, and `json.loads` reads them back."""
    return _encoder.encode(body).encode("utf-8", "surrogatepass")


class Channel:
    """One end of the control socket.

    Messages that cannot be sent at once wait in `pending`, in order. The owner calls `flush` when the socket
    is writable or, if `postponed`, after RETRY_SECONDS: the socket is then writable all the time. The queue
    is bounded: one notice of each kind and one exit a process, one answer a request. An owner that does not
    trust its peer reads no requests while `congested`. `events`: for the owner, what it watches the socket
    for.
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
                # net.core.wmem_default was lowered. The kernel doubles this value (socket(7)).
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
        """Whether the other end leaves many messages unread."""
        return len(self.pending) >= HIGH_WATER_MESSAGES

    def notify(self, kind: bytes, pid: int) -> None:
        """Send a notice, unless the same one already waits."""
        notice = _NOTICE.pack(kind, pid)
        if self.pending:
            if notice in self._notices:
                return
            self._notices.add(notice)
        self._send(notice, ())

    def send(self, body: dict[str, Any], descriptors: Descriptors = ()) -> None:
        """Send JSON and descriptors, which stay the caller's. Raises ValueError for a message that is too
        long, OSError if it has to wait and its descriptors cannot be duplicated."""
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
                # One of the descriptors is closed: a defect of one process only. The other end sees that none
                # came.
                return self._try(data, ())
            self.postponed = error.errno in _FOR_A_WHILE
            if not self.postponed:
                raise Disconnected from error
            return False
        return True

    def receive(self) -> Message | None:
        """The next message that has arrived, or None. Raises Disconnected when the other end is closed,
        NoMessage for anything else than a message.

        One in each turn of the loop: a busy peer does not block other events, and a single message costs no
        second call.
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
    """Raises NoMessage unless this is a JSON object that is not nested too deep for the interpreter."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise NoMessage(str(error)) from None
    if not isinstance(body, dict):
        raise NoMessage("not a JSON object")
    return body


def duplicates(descriptors: Sequence[int]) -> list[int]:
    """All of them or none. Raises OSError."""
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
    """Descriptors that came by SCM_RIGHTS (unix(7))."""
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)
