"""The runtime itself, started as a user starts it and spoken to by binary data frames."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.ws import BINARY, TEXT, WebSocket
from mhnos_runtime import title
from mhnos_runtime.wire import frames

from .base import LOAD, Peer, Session, Unavailable, clean_environment

_START_SECONDS = 20
# Kinds as an operator declares them: the loads without anything between, and any other program.
_CONFIG = f"""\
[kinds.load]
argv = ["{LOAD}", "{{args}}"]
[kinds.program]
argv = ["/usr/bin/env", "{{args}}"]
[kinds.inside]
argv = ["/usr/bin/env", "{{command}}", "{{args}}"]
"""


class RuntimeSession(Session):
    drain_mode = "ours"

    def __init__(self, socket: WebSocket, pid: int) -> None:
        self.socket, self.pid = socket, pid
        self._input = frames.pack_header(frames.INPUT, 0, pid, 0)

    def fileno(self) -> int:
        return self.socket.fileno()

    def write(self, data: bytes) -> None:
        self.socket.send(BINARY, self._input + data)

    def read(self) -> bytes:
        while True:
            opcode, payload = self.socket.receive()
            if opcode == BINARY:
                return bytes(payload[frames.HEADER_BYTES :])

    def kill(self) -> None:
        request(self.socket, type="kill", pid=self.pid, signal="SIGKILL")

    def close(self) -> None:
        self.socket.close()


def server_pid(supervisor_pid: int) -> int:
    """The child of the supervisor that serves. Raises ValueError when there is not exactly one."""
    children = Path(f"/proc/{supervisor_pid}/task/{supervisor_pid}/children").read_text().split()
    (found,) = [pid for pid in children if title.has(int(pid), title.SERVER)]
    return int(found)


def request(socket: WebSocket, **fields: Any) -> dict[str, Any]:
    """Sends a request and gives its answer; output that comes before it is thrown away."""
    socket.send(TEXT, json.dumps({**fields, "id": "bench"}).encode())
    while True:
        opcode, payload = socket.receive()
        if opcode == TEXT and (answer := json.loads(bytes(payload))).get("id") == "bench":
            if answer["type"] == "error":
                raise RuntimeError(f"{fields['type']}: {answer['error']}")
            return dict(answer)


def connected(port: int, token: str) -> WebSocket:
    headers = {"Authorization": f"Bearer {token}", "Sec-WebSocket-Protocol": "mhnos.v1.1"}
    socket = WebSocket(port, "/", headers)
    socket.receive()  # connected
    return socket


class Runtime(Peer):
    """`ballast_bytes`: memory that the server process is made to hold, by a hook outside the product.
    `pause_seconds`: how long floods pause after a key at most, by the same hook; None for the product's own.
    `sandbox`: the level; only none can run what lies outside the workspace and the system's directories."""

    name = "mhnos-runtime"

    def __init__(
        self, ballast_bytes: int = 0, sandbox: str = "none", pause_seconds: float | None = None
    ) -> None:
        self._ballast_bytes = ballast_bytes
        self._pause_seconds = pause_seconds
        self._sandbox = sandbox

    def start(self) -> None:
        if importlib.util.find_spec("mhnos_runtime.cli") is None or not self._command():
            raise Unavailable("mhnos-runtime is not installed")
        self._folder = Path(tempfile.mkdtemp(prefix="bench-runtime-"))
        self._folder.chmod(0o711)  # the user of processes has to reach the workspace
        self.state, workspace = self._folder / "state", self._folder / "workspace"
        self.workspace = workspace
        workspace.mkdir()
        (self._folder / "config.toml").write_text(_CONFIG)
        self._log = (self._folder / "log").open("wb")
        command = [self._command(), "serve", "--port", "0", "--workspace", str(workspace)]
        command += ["--state-dir", str(self.state), "--config", str(self._folder / "config.toml")]
        self._process = subprocess.Popen(command, env=self._environment(), stdout=self._log, stderr=self._log)
        try:
            self._wait_ready()
        except Unavailable:
            self.stop()
            raise
        # Not before: a folder of root's with files in it is no workspace for the user of processes.
        shutil.copy(LOAD, workspace / "load")

    @staticmethod
    def _command() -> str:
        beside = Path(sys.executable).with_name("mhnos-runtime")
        return str(beside) if beside.exists() else shutil.which("mhnos-runtime") or ""

    def _environment(self) -> dict[str, str]:
        environment = {**clean_environment(), "MHNOS_MAX_PROCESSES": "2000", "MHNOS_SANDBOX": self._sandbox}
        if os.geteuid() == 0 and self._sandbox == "none":
            environment["MHNOS_ALLOW_ROOT"] = "true"
        if self._ballast_bytes or self._pause_seconds is not None:
            environment["PYTHONPATH"] = str(Path(__file__).parent.parent / "ballast")
        environment["BENCH_BALLAST_BYTES"] = str(self._ballast_bytes)
        if self._pause_seconds is not None:
            environment["BENCH_PAUSE_SECONDS"] = str(self._pause_seconds)
        return environment

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                told = json.loads((self.state / "server.json").read_text())
                self.token = (self.state / "token").read_text().strip()
                self.port = int(told["url"].rstrip("/").rpartition(":")[2])
                supervisor_pid = int(told["pid"])
                self.connect().close()
                self._pids = [supervisor_pid, server_pid(supervisor_pid)]
            except (OSError, ValueError, KeyError):
                time.sleep(0.02)
                continue
            return
        raise Unavailable(f"mhnos-runtime did not start: {(self._folder / 'log').read_text()[-2000:]}")

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def pids(self) -> list[int]:
        """Supervisor and server; without either of them the figures would be too good."""
        return self._pids

    def own_files(self) -> str:
        return str(self.state)

    def connect(self) -> WebSocket:
        return connected(self.port, self.token)

    def spawn(self, socket: WebSocket, argv: Sequence[str], *, pty: bool = True, **options: Any) -> int:
        answer = request(socket, **self.spawn_fields(argv, pty=pty), **options)
        return int(answer["pid"])

    def spawn_fields(self, argv: Sequence[str], *, pty: bool = True) -> dict[str, Any]:
        size = {"cols": 100, "rows": 30} if pty else False
        kind, args = ("load", argv[1:]) if argv[0] == LOAD else ("program", argv)
        return {
            "type": "spawn",
            "processType": kind,
            "args": list(args),
            "options": {"cwd": "/"},
            "pty": size,
        }

    def open(self, argv: Sequence[str], *, pty: bool = True) -> Session:
        socket = self.connect()
        # The process ends with its connection, as with the peers.
        return RuntimeSession(socket, self.spawn(socket, argv, pty=pty, lingerMs=0))

    def view(self, session: Session) -> Session:
        assert isinstance(session, RuntimeSession)
        socket = self.connect()
        request(socket, type="attach", pid=session.pid, **{"from": "end"})
        return RuntimeSession(socket, session.pid)
