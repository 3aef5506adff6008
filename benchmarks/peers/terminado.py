"""terminado, the terminal of Jupyter. The server is servers/terminado_main.py."""

import json
from collections.abc import Sequence
from itertools import count
from urllib.parse import quote

from benchmarks.ws import TEXT, WebSocket

from .base import SERVERS, WORK, Peer, ServerProcess, Session, Unavailable


class TerminadoSession(Session):
    drain_mode = "json"

    def __init__(self, socket: WebSocket, name: str) -> None:
        self._socket, self.name = socket, name
        self._socket.receive()  # ["setup", {}]

    def fileno(self) -> int:
        return self._socket.fileno()

    def write(self, data: bytes) -> None:
        self._socket.send(TEXT, json.dumps(["stdin", data.decode()]).encode())

    def read(self) -> bytes:
        while True:
            kind, *rest = json.loads(bytes(self._socket.receive()[1]))
            if kind == "stdout":
                return str(rest[0]).encode()
            if kind == "disconnect":
                raise ConnectionError("the process has ended")

    def close(self) -> None:
        self._socket.close()


class Terminado(Peer):
    name = "terminado"

    def start(self) -> None:
        python = WORK / "venv" / "bin" / "python"
        if not (WORK / "venv.done").exists():
            raise Unavailable("run benchmarks/setup.sh")
        self._server = ServerProcess([str(python), str(SERVERS / "terminado_main.py")])
        self._numbers = count()

    def stop(self) -> None:
        self._server.stop()

    def pids(self) -> list[int]:
        return [self._server.process.pid]

    def _connect(self, name: str) -> TerminadoSession:
        return TerminadoSession(WebSocket(self._server.port, "/" + quote(name, safe="")), name)

    def open(self, argv: Sequence[str], *, pty: bool = True) -> Session:
        return self._connect(f"{next(self._numbers)}:{json.dumps(list(argv))}")

    def view(self, session: Session) -> Session:
        assert isinstance(session, TerminadoSession)
        return self._connect(session.name)
