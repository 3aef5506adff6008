"""Servers at each level, and what attempts to get out are aimed at. Knows no attempt."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import shutil
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import mhnos_runtime
from mhnos_runtime.sandbox.facts import HostFacts
from mhnos_runtime.sandbox.probe import landlock_abi, probe
from mhnos_runtime.testing import TestServer
from tests.server.client import Client, connect

SOURCES = Path(__file__).parent
#: Small, so that to exceed them is quick.
TASKS = 40
MEMORY = 192 << 20
FILE_BYTES = 32 << 20
FLAGS = (
    *("--kill-grace-seconds", "0.5", "--max-tasks", str(TASKS), "--max-memory", str(MEMORY)),
    *("--max-file-size", str(FILE_BYTES), "--max-processes", "200", "--allow-host", "127.0.0.1"),
)
#: Makes the runtime believe that the kernel has no control group that it may use: it looks itself then.
BLIND = {"PYTHONPATH": str(SOURCES / "no_cgroups")}
#: What processes must never see.
SERVER_SECRET = "secret-of-the-server-" + secrets.token_hex(8)


@pytest.fixture(scope="session")
def facts() -> HostFacts:
    return probe(None)


def require(facts: HostFacts, level: str) -> None:
    """Skip where the host does not offer a level, which the runtime then refuses to give."""
    missing = facts.missing(level)
    if missing:
        pytest.skip("; ".join(f"{fact.name}: {fact.detail}" for fact in missing))


def place() -> Path:
    """A folder that users of processes can reach, and that is not below /tmp, which relaxed gives them."""
    parent = Path("/var/lib") if os.geteuid() == 0 else Path.home() / ".cache"
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="mhnos-tests-", dir=parent))
    folder.chmod(0o755)
    return folder


@dataclass
class Arena:
    """A server at one level, a client of it, and targets. facts: what attempts are told."""

    server: TestServer
    level: str
    network: str
    facts: dict[str, Any] = field(default_factory=dict)
    clients: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    client: Client | None = None
    landlock: int = 0
    counted_by: str = ""

    @property
    def small_shared_memory(self) -> bool:
        """Whether the machine's own /dev/shm holds less than what an attempt puts there, as in containers."""
        found = os.statvfs("/dev/shm")
        return found.f_bavail * found.f_frsize < 2 * MEMORY

    async def run(self, kind: str, command: str, *args: str, **options: Any) -> tuple[str, dict[str, Any]]:
        """(all output, exit message) of a process on pipes."""
        client = self.client
        assert client is not None
        pid = await client.spawn(kind, command, *args, **{"pty": False, **options})
        ended = await client.exit(pid)
        return client.output(pid), ended


class Targets:
    """Services of the host that processes may try to reach, and a piece of System V memory."""

    def __init__(self, folder: Path) -> None:
        self._stack = contextlib.ExitStack()
        self.abstract = "mhnos-test-" + secrets.token_hex(4)
        self.tcp = self._listen(socket.AF_INET, ("127.0.0.1", 0))
        self.tcp6 = self._listen(socket.AF_INET6, ("::1", 0)) if socket.has_ipv6 else self.tcp
        self._listen(socket.AF_UNIX, "\0" + self.abstract)
        self._listen(socket.AF_UNIX, str(folder / "socket"))
        (folder / "socket").chmod(0o777)
        self.udp = self._stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.udp.bind(("127.0.0.1", 0))
        threading.Thread(target=self._answer, daemon=True).start()
        self.shm_key = secrets.randbelow(1 << 30) + 1
        self._libc = ctypes.CDLL(None)
        self._shm = self._libc.shmget(self.shm_key, 4096, 0o1666)

    def _listen(self, family: int, address: Any) -> socket.socket:
        sock = self._stack.enter_context(socket.socket(family))
        sock.bind(address)
        sock.listen(64)
        return sock

    def _answer(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                _data, sender = self.udp.recvfrom(100)
                if not sender:
                    return
                self.udp.sendto(b"answer", sender)

    def close(self) -> None:
        self._libc.shmctl(self._shm, 0, None)
        self.udp.close()
        self._stack.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def arena(request: pytest.FixtureRequest, facts: HostFacts) -> AsyncIterator[Arena]:
    """One server for all attempts at one level with one network; "blind": without control groups."""
    level, network, *blind = request.param
    require(facts, level)
    folder = place()
    outside = folder / "outside"
    outside.mkdir()
    outside.chmod(0o777)
    targets = Targets(outside)
    flags = ("--sandbox", level, "--network", network, *FLAGS)
    server = TestServer(
        folder / "server", *flags, environment={"A_SECRET": SERVER_SECRET, **(BLIND if blind else {})}
    )
    try:
        async with server, opened(server, level, network, outside, targets) as arena:
            yield arena
    finally:
        targets.close()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.asynccontextmanager
async def opened(
    server: TestServer, level: str, network: str, outside: Path, targets: Targets
) -> AsyncIterator[Arena]:
    arena = Arena(server, level, network, landlock=landlock_abi())
    for source in SOURCES.glob("attack*.py"):
        shutil.copy(source, server.workspace)
    victim_secret = "secret-of-another-" + secrets.token_hex(8)
    shutil.copy(SOURCES / "victim.py", server.workspace)
    async with connect(server) as client:
        arena.client = client
        mark = "victim-" + secrets.token_hex(4)
        options = {"env": {"A_SECRET": victim_secret}}
        size = {"cols": 200, "rows": 24}
        victim = await client.spawn("python", "victim.py", mark, pty=size, options=options)
        has = json.loads((await client.text(victim, "}")).partition("up ")[2])
        (row,) = (await client.ask("list"))["processes"]
        uid = row["isolation"]["uid"]
        arena.counted_by = row["isolation"]["limits"]["memory"]
        for name, mode in (("secret", 0o644), ("other", 0o666), ("owned", 0o644)):
            (outside / name).write_text("what lies outside")
            (outside / name).chmod(mode)
            os.chown(outside / name, uid, -1)
        arena.facts = {
            "token": str(server.state_dir / "token"),
            "state": str(server.state_dir),
            "package": str(Path(mhnos_runtime.__file__).parent),
            "server_secret": SERVER_SECRET,
            "server_pid": server.server_pid(),
            "supervisor_pid": server.pid,
            "victim_secret": victim_secret,
            "victim_mark": mark,
            "victim_pid": row["osPid"],
            "victim_terminal": os.readlink(f"/proc/{row['osPid']}/fd/0"),
            "victim_temporary": has["temporary"],
            "victim_shared": has["shared"],
            "outside": str(outside),
            "disk": [os.major(outside.stat().st_dev), os.minor(outside.stat().st_dev)],
            "shm_key": targets.shm_key,
            "port": int(server.url.rsplit(":", 1)[1]),
            "service_port": targets.tcp.getsockname()[1],
            "service_port6": targets.tcp6.getsockname()[1],
            "udp_port": targets.udp.getsockname()[1],
            "abstract": targets.abstract,
            "tasks": TASKS,
            "memory": MEMORY,
            "shm_dev": os.stat("/dev/shm").st_dev,
            "file_bytes": FILE_BYTES,
        }
        try:
            yield arena
        finally:
            for path in has.values():
                Path(path).unlink(missing_ok=True)


@pytest.fixture(params=("strict", "relaxed", "none"))
def level(request: pytest.FixtureRequest, facts: HostFacts) -> str:
    require(facts, request.param)
    return str(request.param)


@pytest.fixture
def folder() -> Iterator[Path]:
    made = place()
    yield made
    shutil.rmtree(made, ignore_errors=True)


def as_argument(facts: dict[str, Any]) -> str:
    return json.dumps(facts)
