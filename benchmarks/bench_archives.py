"""10,000 files of 2 KiB as one tar, out of a workspace and into one, beside GNU tar over a pipe."""

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from mhnos_runtime.testing import TestServer

from .context import OURS, Context
from .measure import median
from .result import Figure

_FOLDERS = 10
_FILES = 1000
_BYTES = 2048
_PEER = "GNU tar"
#: The end of a chunked body, RFC 9112, 7.1.
_END = b"\r\n0\r\n\r\n"
_MIB = 1 << 20


def _plant(root: Path) -> None:
    for folder in range(_FOLDERS):
        (root / f"folder-{folder}").mkdir(parents=True)
        for number in range(_FILES):
            (root / f"folder-{folder}/file-{number:04}.txt").write_bytes(os.urandom(_BYTES // 2) * 2)


def _ask(server: TestServer, method: str, path: str, length: int = 0) -> socket.socket:
    host, _, port = server.url.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)))
    head = f"{method} /v1/files/{path}?archive=tar HTTP/1.1\r\nHost: {host}\r\n"
    head += f"Authorization: Bearer {server.token}\r\nContent-Length: {length}\r\n\r\n"
    connection.sendall(head.encode())
    return connection


def _down_ms(server: TestServer) -> float:
    start = time.perf_counter()
    with _ask(server, "GET", "source") as connection:
        buffer, tail, total = bytearray(_MIB), b"", 0
        while count := connection.recv_into(buffer):
            total += count
            tail = (tail + bytes(buffer[max(count - len(_END), 0) : count]))[-len(_END) :]
            if tail == _END:
                break
    assert total > _FOLDERS * _FILES * (_BYTES + 512)
    return (time.perf_counter() - start) * 1000


def _up_ms(server: TestServer, archive: Path) -> float:
    start = time.perf_counter()
    with open(archive, "rb") as file, _ask(server, "PUT", "target", archive.stat().st_size) as connection:
        connection.sendfile(file)
        answer = connection.recv(4096)
        while not answer.endswith(b"}"):
            answer += connection.recv(4096)
    assert b'"failed": 0' in answer
    return (time.perf_counter() - start) * 1000


def _pack(folder: Path, archive: Path) -> None:
    subprocess.run(["tar", "cf", archive, "-C", folder, "."], check=True)


def _tar_down_ms(root: Path) -> float:
    start = time.perf_counter()
    subprocess.run(f"tar cf - -C {root} source | cat > /dev/null", shell=True, check=True)
    return (time.perf_counter() - start) * 1000


def _tar_up_ms(root: Path, archive: Path) -> float:
    (root / "target").mkdir()
    start = time.perf_counter()
    subprocess.run(f"cat {archive} | tar xf - -C {root}/target", shell=True, check=True)
    return (time.perf_counter() - start) * 1000


def _memory_kib(pid: int, what: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1])
    raise RuntimeError(what)


async def _measure(root: Path, rounds: int) -> tuple[dict[str, list[float]], dict[str, list[float]], float]:
    down: dict[str, list[float]] = defaultdict(list)
    up: dict[str, list[float]] = defaultdict(list)
    async with TestServer(root) as server:
        _plant(server.workspace / "source")
        archive = root / "archive.tar"
        await asyncio.to_thread(_pack, server.workspace / "source", archive)
        pid = server.server_pid()
        idle = _memory_kib(pid, "VmRSS:")
        for number in range(rounds + 1):
            samples = (
                (down, OURS, await asyncio.to_thread(_down_ms, server)),
                (down, _PEER, await asyncio.to_thread(_tar_down_ms, server.workspace)),
                (up, OURS, await asyncio.to_thread(_up_ms, server, archive)),
            )
            shutil.rmtree(server.workspace / "target")
            peer = await asyncio.to_thread(_tar_up_ms, server.workspace, archive)
            shutil.rmtree(server.workspace / "target")
            if number:  # The first round fills caches.
                for rows, name, value in (*samples, (up, _PEER, peer)):
                    rows[name].append(value)
        return down, up, (_memory_kib(pid, "VmHWM:") - idle) / 1024


def run(context: Context) -> list[Figure]:
    # On the disk that a workspace would be on, and not in memory.
    root = Path(tempfile.mkdtemp(prefix="bench-archives-", dir="/var/lib" if os.geteuid() == 0 else None))
    root.chmod(0o755)
    try:
        down, up, memory = asyncio.run(_measure(root, context.pick(10, 3)))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    figures = []
    for name, rows in (("10,000 files as tar: download", down), ("10,000 files as tar: upload", up)):
        figure = Figure(name, "ms", {peer: median(values) for peer, values in rows.items()})
        figure.demand(f"{OURS} to {_PEER}", figure.ratio(OURS, _PEER), "<=", 1.5)
        figures.append(figure)
    figure = Figure("10,000 files as tar: memory of the server", "MiB", {OURS: memory})
    figure.demand(f"{OURS}: above idle", memory, "<", 64, "MiB")
    return [*figures, figure]
