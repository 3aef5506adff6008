"""The other end of one connection, on a thread: it says what a script says, byte by byte. Runs no server."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from mhnos_runtime.client.direct import Direct
from mhnos_runtime.client.discovery import Target
from mhnos_runtime.wire import messages as m
from tests.server import raw

PATIENCE_S = 20.0
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONFIG = {"workspace": "/workspace", "sandboxMode": "none", "allowOpenClaw": False}
GREETING = {
    "type": "connected",
    "protocolVersion": "1.0.0",
    "config": CONFIG,
    "serverId": "first",
    "protocol": "1.1",
}


class Peer:
    """One accepted connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        connection.settimeout(PATIENCE_S)
        self._data = b""

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def send_frame(self, opcode: int, payload: bytes = b"", **options: Any) -> None:
        self.send(raw.frame(opcode, payload, **{"mask": None, **options}))

    def say(self, **message: Any) -> None:
        self.send_frame(raw.TEXT, json.dumps(message).encode())

    def head(self) -> str:
        """The request's head."""
        while b"\r\n\r\n" not in self._data:
            self._more()
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        return head.decode()

    def accept(self, **changes: str | None) -> str:
        """Answer the handshake; changes: headers with _ for -, None leaves one out. Returns the request's
        head."""
        head = self.head()
        key = next(
            line.partition(": ")[2] for line in head.split("\r\n") if line.startswith("Sec-WebSocket-Key")
        )
        digest = hashlib.sha1(key.encode() + GUID).digest()
        headers: dict[str, str | None] = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Accept": base64.b64encode(digest).decode(),
            "Sec-WebSocket-Protocol": m.SUBPROTOCOL,
            **{name.replace("_", "-"): value for name, value in changes.items()},
        }
        lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
        self.send("\r\n".join(["HTTP/1.1 101 Switching Protocols", *lines, "", ""]).encode())
        return head

    def greet(self, behind: bytes = b"") -> None:
        """behind: what comes in the same packet as the greeting."""
        self.accept()
        self.send(raw.frame(raw.TEXT, json.dumps(GREETING).encode(), mask=None) + behind)

    def frame(self) -> tuple[int, bytes]:
        """The next frame of the client, which has to be masked and whole: opcode and payload."""
        first, second = self._take(2)
        assert first & 0xF0 == 0x80
        assert second & 0x80
        size = second & 0x7F
        if size >= 126:
            size = int.from_bytes(self._take(2 if size == 126 else 8))
        mask = self._take(4)
        return first & 0x0F, raw.masked(mask, self._take(size))

    def request(self) -> dict[str, Any]:
        """The next message of the client, which has to be a text."""
        opcode, payload = self.frame()
        assert opcode == raw.TEXT
        message: dict[str, Any] = json.loads(payload)
        return message

    def until_closed(self, *, polite: bool = True) -> list[tuple[int, bytes]]:
        """The frames up to the end of the connection. polite: a goodbye is answered."""
        found = []
        try:
            while True:
                found.append(self.frame())
                if found[-1][0] == raw.CLOSE and polite:
                    self.send_frame(raw.CLOSE, found[-1][1])
        except (EOFError, ConnectionError):
            return found

    def _take(self, size: int) -> bytes:
        while len(self._data) < size:
            self._more()
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def _more(self) -> None:
        data = self.connection.recv(1 << 16)
        if not data:
            raise EOFError
        self._data += data


class Scripted:
    """A listener whose connections a script answers, one after the other. A context manager; what a script
    raises, its end raises again."""

    def __init__(self, *scripts: Callable[[Peer], object]) -> None:
        self._scripts = scripts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE_S)
        self._thread = threading.Thread(target=self._run)
        self._error: BaseException | None = None
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Scripted:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.join(PATIENCE_S)
        self._listener.close()
        if self._error is not None and error is None:
            raise self._error

    def _run(self) -> None:
        try:
            for script in self._scripts:
                connection, _ = self._listener.accept()
                with connection:
                    script(Peer(connection))
        except BaseException as error:
            self._error = error


def target(server: Scripted, token: str | None = None, end: str = "") -> Target:
    """Where it listens; end: a path."""
    return Target(server.url + end, token, "a test")


def dial(server: Scripted) -> Direct:
    """A blocking connection to it."""
    return Direct.open(target(server))


def answered(*answers: bytes) -> Scripted:
    """A listener that gives one of these answers on each connection."""

    def scripted(answer: bytes) -> Callable[[Peer], None]:
        def script(peer: Peer) -> None:
            peer.head()
            peer.send(answer)

        return script

    return Scripted(*map(scripted, answers))
