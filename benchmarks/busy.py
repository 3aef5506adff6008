"""Keeps a runtime busy with files, as fast as one client can: in a process of its own, so that it is in
nobody's way.

`python -m benchmarks.busy list|pack|unpack|watch PORT TOKEN WORKSPACE` goes on until it is killed. It prints
a line when it has done the first of it, and works on the folders `many` and `tree` of the workspace.
"""

import http.client
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .peers.runtime import connected, request
from .ws import TEXT

WAYS = ("list", "pack", "unpack", "watch")
_BUFFER = 1 << 20


@contextmanager
def busy(way: str, port: int, token: str, workspace: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "benchmarks.busy", way, str(port), token, str(workspace)]
    root = Path(__file__).parent.parent
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            yield
            assert process.poll() is None
        finally:
            process.kill()


def _list(port: int, token: str, _: Path) -> Iterator[None]:
    socket = connected(port, token)
    while True:
        request(socket, type="listFiles", path="/many")
        yield


def _pack(port: int, token: str, _: Path) -> Iterator[None]:
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        headers = {"Authorization": f"Bearer {token}"}
        connection.request("GET", "/v1/files/tree?archive=tar", headers=headers)
        answer, buffer = connection.getresponse(), bytearray(_BUFFER)
        while answer.readinto(buffer):
            pass
        connection.close()
        yield


def _unpack(port: int, token: str, workspace: Path) -> Iterator[None]:
    data = subprocess.run(["tar", "c", "tree"], cwd=workspace, stdout=subprocess.PIPE, check=True).stdout
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        headers = {"Authorization": f"Bearer {token}"}
        connection.request("PUT", "/v1/files/unpacked?archive=tar", data, headers)
        assert b'"failed": 0' in connection.getresponse().read()
        connection.close()
        yield


def _watch(port: int, token: str, workspace: Path) -> Iterator[None]:
    """Some hundred files change between two messages."""
    socket = connected(port, token)
    request(socket, type="watchFiles", path="/tree")
    files = sorted((workspace / "tree").rglob("*.txt"))[:200]
    while True:
        for file in files:
            with file.open("a") as opened:
                opened.write("x")
        while socket.receive()[0] != TEXT:
            pass
        yield


def main() -> None:
    way, port, token, workspace = sys.argv[1:]
    steps = {"list": _list, "pack": _pack, "unpack": _unpack, "watch": _watch}[way]
    for number, _ in enumerate(steps(int(port), token, Path(workspace))):
        if not number:
            print(flush=True)


if __name__ == "__main__":
    main()
