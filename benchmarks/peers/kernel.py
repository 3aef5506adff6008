"""The limits: a bare loop on a PTY, and a bare copy from a pipe to a TCP connection. No server at all."""

import os
import pty
import signal
import socket
import subprocess
from collections.abc import Sequence

from .base import WORK, Peer, Session


class PtySession(Session):
    def __init__(self, argv: Sequence[str]) -> None:
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            try:
                os.execvp(argv[0], list(argv))
            finally:
                os._exit(127)

    def fileno(self) -> int:
        return self._master

    def write(self, data: bytes) -> None:
        os.write(self._master, data)

    def read(self) -> bytes:
        return os.read(self._master, 65536)

    def close(self) -> None:
        os.close(self._master)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


class Kernel(Peer):
    name = "kernel"

    def open(self, argv: Sequence[str], *, pty: bool = True) -> Session:
        return PtySession(argv)


class CopySession(Session):
    def __init__(self, argv: Sequence[str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._client = socket.create_connection(listener.getsockname())
            server, _ = listener.accept()
        with server:
            self._writer = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert self._writer.stdout is not None
            self._copier = subprocess.Popen(
                [str(WORK / "bin" / "pipecopy")], stdin=self._writer.stdout, stdout=server.fileno()
            )
        self._writer.stdout.close()

    def fileno(self) -> int:
        return self._client.fileno()

    def write(self, data: bytes) -> None:
        assert self._writer.stdin is not None
        self._writer.stdin.write(data)
        self._writer.stdin.flush()

    def read(self) -> bytes:
        return self._client.recv(65536)

    def close(self) -> None:
        self._client.close()
        for process in (self._writer, self._copier):
            process.kill()
            process.wait()
        assert self._writer.stdin is not None
        self._writer.stdin.close()


class PipeToTcp(Peer):
    name = "pipe-to-tcp"

    def open(self, argv: Sequence[str], *, pty: bool = True) -> Session:
        return CopySession(argv)
