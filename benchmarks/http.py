"""Moves one file over HTTP as fast as a client can: in a process of its own, so that it is in nobody's way.

`python -m benchmarks.http get|put PORT TOKEN PATH FILE` prints how long it took, in seconds.
"""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

_BUFFER = 1 << 20


class Moving:
    """A transfer under way."""

    def __init__(self, method: str, port: int, token: str, path: str, file: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.http", method, str(port), token or "-", path, str(file)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent)

    @property
    def going_on(self) -> bool:
        return self._process.poll() is None

    def seconds(self) -> float:
        """Waits for its end. Raises RuntimeError where it failed."""
        output, _ = self._process.communicate()
        if self._process.returncode:
            raise RuntimeError("a transfer failed")
        return float(output)


def _head(connection: socket.socket) -> tuple[dict[str, str], bytes]:
    """Headers of an answer that is good, and what came behind them."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, rest = data.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    if status.split()[1][0] != "2":
        raise RuntimeError(data.decode(errors="replace"))
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}, rest


def get(connection: socket.socket, request: str, file: Path) -> None:
    """Reads a file that has the size of this one, and throws it away."""
    connection.sendall(f"GET {request}\r\n".encode())
    headers, rest = _head(connection)
    size, came, buffer = file.stat().st_size, len(rest), bytearray(_BUFFER)
    while came < size and (count := connection.recv_into(buffer)):
        came += count
    if came != size or int(headers["content-length"]) != size:
        raise RuntimeError(f"{came} of {size} bytes came")


def put(connection: socket.socket, request: str, file: Path) -> None:
    size, sent = file.stat().st_size, 0
    connection.sendall(f"PUT {request}Content-Length: {size}\r\n\r\n".encode())
    with file.open("rb") as source:
        while sent < size:
            sent += os.sendfile(connection.fileno(), source.fileno(), sent, size - sent)
    _head(connection)


def main() -> None:
    method, port, token, path, file = sys.argv[1:]
    with socket.create_connection(("127.0.0.1", int(port))) as connection:
        request = f"{path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
        start = time.perf_counter()
        (get if method == "get" else put)(connection, request, Path(file))
        print(time.perf_counter() - start)


if __name__ == "__main__":
    main()
