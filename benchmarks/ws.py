"""A WebSocket client on a blocking socket, too lean to be what is measured. Knows frames, not messages."""

import base64
import os
import socket
from collections.abc import Mapping

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
_BUFFER_BYTES = 1 << 20


class WebSocket:
    """One connection. `receive` gives whole frames; no peer here fragments messages."""

    def __init__(self, port: int, path: str = "/", headers: Mapping[str, str] | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._shake_hands(port, path, headers or {})

    def _shake_hands(self, port: int, path: str, headers: Mapping[str, str]) -> None:
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
        ]
        lines += [
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            "Sec-WebSocket-Version: 13",
        ]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        while (end := self._buffer.find(b"\r\n\r\n", 0, self._end)) < 0:
            self._fill()
        status = bytes(self._view[:end]).split(b"\r\n", 1)[0]
        if b" 101" not in status:
            raise ConnectionError(f"upgrade refused: {status.decode()}")
        self._start = end + 4

    def fileno(self) -> int:
        return self.socket.fileno()

    def close(self) -> None:
        self.socket.close()

    def _fill(self) -> None:
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == _BUFFER_BYTES:
            kept = bytes(self._view[self._start : self._end])
            self._view[: len(kept)] = kept
            self._start, self._end = 0, len(kept)
        n = self.socket.recv_into(self._view[self._end :])
        if not n:
            raise ConnectionError("the server closed the connection")
        self._end += n

    def _need(self, n: int) -> None:
        while self._end - self._start < n:
            self._fill()

    def send(self, opcode: int, payload: bytes) -> None:
        self.socket.sendall(encode(opcode, payload))

    def receive(self) -> tuple[int, memoryview]:
        """The next data frame; valid until the next call. Pings are answered on the way."""
        while True:
            self._need(2)
            first, length = self._buffer[self._start], self._buffer[self._start + 1] & 0x7F
            head = 2 if length < 126 else 4 if length == 126 else 10
            self._need(head)
            if head > 2:
                length = int.from_bytes(self._view[self._start + 2 : self._start + head], "big")
            self._need(head + length)
            payload = self._view[self._start + head : self._start + head + length]
            self._start += head + length
            opcode = first & 0x0F
            if opcode == PING:
                self.send(PONG, bytes(payload))
            elif opcode == CLOSE:
                raise ConnectionError(f"the server closed the connection: {bytes(payload)!r}")
            elif opcode != PONG:
                return opcode, payload


def encode(opcode: int, payload: bytes) -> bytes:
    """A client frame. The zero mask is a valid one and leaves the payload as it is (RFC 6455, 5.3)."""
    n = len(payload)
    if n < 126:
        head = bytes((0x80 | opcode, 0x80 | n))
    elif n < 1 << 16:
        head = bytes((0x80 | opcode, 0xFE)) + n.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 0xFF)) + n.to_bytes(8, "big")
    return head + b"\0\0\0\0" + payload
