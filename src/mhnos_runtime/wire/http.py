"""HTTP/1.1 as a client speaks it (RFC 9112): a request's bytes out; an answer's bytes in, head and body out.

Pure: knows no socket, and not what an answer means.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

#: Of everything before the body, interim answers (1xx) included; also of what follows a body in chunks.
MAX_HEAD_BYTES = 64 * 1024
_MAX_CHUNK_LINE_BYTES = 1024  # a size in hexadecimal; extensions are for nobody

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: .*)?", re.DOTALL)
_BEGINNING = b"HTTP/1."
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_CONTINUE = 100
_SWITCHING = 101


class BadAnswer(Exception):
    """What came is no answer of HTTP/1.1, or larger than it may be."""


class Head(NamedTuple):
    """Status and headers of an answer; names in lower case, each with its values as they came."""

    status: int
    headers: Mapping[str, list[str]]

    def get(self, name: str) -> str | None:
        """The header's first value."""
        values = self.headers.get(name)
        return values[0] if values else None

    def items(self, name: str) -> list[str]:
        """The items of a header that is a list, in lower case."""
        return [item.strip().lower() for value in self.headers.get(name, ()) for item in value.split(",")]


def request(method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """A request's bytes. Raises ValueError for what cannot stand in a head, such as a line end."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    for line in lines:
        if _FORBIDDEN.search(line):
            raise ValueError(f"a control character in the line of {line.partition(':')[0][:40]!r}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class Answer:
    """feed() what was received until `done`, end() at the end of the connection. Both raise BadAnswer.

    `head` is there as soon as it is whole; `body` grows, to max_body_bytes at most; None: it may be of any
    size, and whoever feeds it takes it by take(). `length`: of the body, as the head says it; None in chunks,
    and where only the end of the connection ends it. An answer that changes the protocol (101) is done with
    its head: `rest` is what came behind it.
    """

    def __init__(self, max_body_bytes: int | None, *, to_head: bool = False) -> None:
        """to_head: it answers HEAD, so that no body comes, whatever its head says."""
        self._max_body_bytes = max_body_bytes
        self._to_head = to_head
        self._data = bytearray()
        self._searched = 0  # bytes of _data in which a head does not end
        self._before_bytes = 0  # interim answers
        self._left: int | None = None  # of the body, or of its current chunk; None: until the end
        self._chunked = False
        self._ends_chunk = False
        self._in_trailer = False
        self.continued = False  # the server has said that it takes the request's body (100)
        self.length: int | None = None
        self.head: Head | None = None
        self.body = bytearray()
        self.done = False

    @property
    def rest(self) -> bytes:
        """What was received and does not belong to the answer."""
        return bytes(self._data) if self.done else b""

    def feed(self, data: bytes) -> None:
        self._data += data
        while self.head is None:
            if not self._take_head():
                return
        if not self.done:
            if self._chunked:
                self._take_chunks()
            else:
                self._take_body()

    def take(self) -> bytes:
        """What has come of the body since the last time."""
        taken = bytes(self.body)
        self.body.clear()
        return taken

    @property
    def framed(self) -> bool:
        """Whether its body ends by itself, so that one that was cut off does not pass for a whole one."""
        return self.done or self._chunked or self.length is not None

    def end(self) -> None:
        """The connection has ended. Raises BadAnswer when the answer is not whole."""
        if self.head is not None and self._left is None and not self._chunked:
            self.done = True
        if not self.done:
            raise BadAnswer("the connection ended before the answer did")

    # The head: RFC 9112, 4 and 5

    def _take_head(self) -> bool:
        """Take one head, if it is there; that of an interim answer is dropped."""
        data = self._data
        if not data.startswith(_BEGINNING[: len(data)]):
            raise BadAnswer("what answers is not HTTP/1.1")
        at = data.find(b"\r\n\r\n", max(0, self._searched - 3))
        if self._before_bytes + (len(data) if at < 0 else at) > MAX_HEAD_BYTES:
            raise BadAnswer(f"a head of more than {MAX_HEAD_BYTES} bytes")
        if at < 0:
            self._searched = len(data)
            return False
        head = _parse_head(bytes(data[:at]))
        del data[: at + 4]
        self._searched = 0
        if head.status < 200 and head.status != _SWITCHING:
            self._before_bytes += at + 4
            self.continued = self.continued or head.status == _CONTINUE
            return True
        self.head = head
        self._begin_body(head)
        return True

    def _begin_body(self, head: Head) -> None:
        """RFC 9112, 6.3."""
        lengths = set(head.items("content-length"))
        if self._to_head or head.status in (_SWITCHING, 204, 304):
            self.done = True
        elif "transfer-encoding" in head.headers:
            if head.items("transfer-encoding") != ["chunked"]:
                raise BadAnswer("a transfer coding other than chunked")
            self._chunked, self._left = True, 0
        elif lengths:
            length = lengths.pop()
            if lengths or not (length.isascii() and length.isdigit() and len(length) < 20):
                raise BadAnswer("a Content-Length that is none")
            self.length = self._left = int(length)
            self._check_size(self.length)

    # The body: RFC 9112, 6 and 7

    def _take_body(self) -> None:
        most = len(self._data) if self._left is None else min(self._left, len(self._data))
        self._check_size(most)
        self._move(most)
        if self._left is not None:
            self._left -= most
            self.done = self._left == 0

    def _move(self, size: int) -> None:
        """Take so much as body."""
        if size == len(self._data) and not self.body:  # the usual case of a large body, without a copy
            self.body, self._data = self._data, self.body
        else:
            self.body += self._data[:size]
            del self._data[:size]

    def _take_chunks(self) -> None:
        while not self.done:
            if self._in_trailer:
                if not self._take_trailer():
                    return
            elif self._left:
                most = min(self._left, len(self._data))
                self._move(most)
                self._left -= most
                if self._left:
                    return
                self._ends_chunk = True
            elif not (self._take_chunk_end() if self._ends_chunk else self._take_chunk_size()):
                return

    def _take_chunk_end(self) -> bool:
        if len(self._data) < 2:
            return False
        if not self._data.startswith(b"\r\n"):
            raise BadAnswer("a chunk that does not end where it says")
        del self._data[:2]
        self._ends_chunk = False
        return True

    def _take_chunk_size(self) -> bool:
        line = self._line(_MAX_CHUNK_LINE_BYTES)
        if line is None:
            return False
        digits = line.partition(b";")[0].strip()
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,16}", digits):
            raise BadAnswer("a chunk without a size")
        size = int(digits, 16)
        self._check_size(size)
        self._in_trailer = size == 0
        self._left = size
        return True

    def _take_trailer(self) -> bool:
        line = self._line(MAX_HEAD_BYTES)
        if line is None:
            return False
        self._before_bytes += len(line)
        if self._before_bytes > MAX_HEAD_BYTES:
            raise BadAnswer("a trailer that does not end")
        self.done = not line
        return True

    def _line(self, max_bytes: int) -> bytes | None:
        at = self._data.find(b"\r\n")
        if (len(self._data) if at < 0 else at) > max_bytes:
            raise BadAnswer(f"a line of more than {max_bytes} bytes")
        if at < 0:
            return None
        line = bytes(self._data[:at])
        del self._data[: at + 2]
        return line

    def _check_size(self, more: int) -> None:
        if self._max_body_bytes is not None and len(self.body) + more > self._max_body_bytes:
            raise BadAnswer(f"a body of more than {self._max_body_bytes} bytes")


def _parse_head(data: bytes) -> Head:
    status_line, *lines = data.split(b"\r\n")
    found = _STATUS_LINE.fullmatch(status_line)
    if found is None:
        raise BadAnswer("what answers is not HTTP/1.1")
    headers: dict[str, list[str]] = {}
    for line in lines:
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon or not _TOKEN.fullmatch(name) or _FORBIDDEN.search(value):
            raise BadAnswer("a header that is none")
        headers.setdefault(name.lower(), []).append(value.strip(" \t"))
    return Head(int(found[1]), headers)
