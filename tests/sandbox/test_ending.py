"""How trees end inside the levels, and what exit records say of it. Knows no mechanism."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mhnos_runtime.testing import TestServer
from tests.server.client import Client, connect, eventually

#: Children that hang on: a double fork, a session of its own, ignored signals, a stopped one.
CLINGER = """
import os, signal, sys, time
mark = sys.argv[1]
told, tell = os.pipe()

def hang_on(how):
    if os.fork() == 0:
        if how != "child":
            os.setsid()
            if os.fork():
                os._exit(0)
        for number in (1, 2, 3, 15):
            signal.signal(number, signal.SIG_IGN)
        os.write(tell, b".")
        if how == "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)", mark])

for how in ("child", "daemon", "stopped"):
    hang_on(how)
for _ in range(3):
    os.read(told, 1)
print("up", flush=True)
if sys.argv[2] == "stay":
    time.sleep(600)
"""


@asynccontextmanager
async def serving(folder: Path, level: str, *flags: str) -> AsyncIterator[tuple[TestServer, Client]]:
    flags = ("--sandbox", level, "--kill-grace-seconds", "0.5", *flags)
    async with TestServer(folder / "server", *flags) as server:
        (server.workspace / "cling.py").write_text(CLINGER)
        async with connect(server) as client:
            yield server, client


def marked(mark: str) -> list[int]:
    """OS pids of living processes with this argument."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if mark.encode() in words:
            found.append(int(name))
    return found


async def test_after_killed_nothing_is_left(level: str, folder: Path) -> None:
    async with serving(folder, level) as (_, client):
        mark = f"cling-{os.urandom(4).hex()}"
        pid = await client.spawn("python", "cling.py", mark, "stay", pty=False)
        await client.text(pid, "up")

        async def all_are_there() -> bool:
            """None of the parents in between any more."""
            return len(marked(mark)) == 4

        await eventually(all_are_there)
        await client.ask("kill", pid=pid)
        assert marked(mark) == []


async def test_after_the_end_of_the_main_process_nothing_is_left(level: str, folder: Path) -> None:
    async with serving(folder, level) as (_, client):
        mark = f"cling-{os.urandom(4).hex()}"
        pid = await client.spawn("python", "cling.py", mark, "leave", pty=False)
        ended = await client.exit(pid)
        assert (ended["code"], ended["reason"]) == (0, "exit")
        assert marked(mark) == []


async def test_after_a_timeout_and_after_the_end_of_the_runtime_nothing_is_left(
    level: str, folder: Path
) -> None:
    mark = f"cling-{os.urandom(4).hex()}"
    async with serving(folder, level) as (_, client):
        options = {"timeout": 1500}
        pid = await client.spawn("python", "cling.py", mark, "stay", pty=False, options=options)
        ended = await client.exit(pid)
        assert ended["reason"] == "timeout"
        assert marked(mark) == []
        other = await client.spawn("python", "cling.py", mark, "stay", pty=False)
        await client.text(other, "up")
    assert marked(mark) == []


async def test_processes_die_with_the_supervisor(level: str, folder: Path) -> None:
    """Without namespaces, only the main process can: see docs/threat-model.md."""
    async with serving(folder, level) as (server, client):
        mark = f"cling-{os.urandom(4).hex()}"
        pid = await client.spawn("python", "cling.py", mark, "stay", pty=False)
        await client.text(pid, "up")
        main = next(row for row in (await client.ask("list"))["processes"] if row["pid"] == pid)["osPid"]
        os.kill(server.pid, signal.SIGKILL)

        async def gone() -> bool:
            left = marked(mark)
            return not left if level == "strict" else main not in left

        await eventually(gone)
    for os_pid in marked(mark):
        os.kill(os_pid, signal.SIGKILL)


ENDS = [
    ("exit 0", 0, None),
    ("exit 7", 7, None),
    ("exit 137", 137, None),
    ("exit 143", 143, None),
    ("exit 255", 255, None),
    ("kill -9 $$", None, "SIGKILL"),
    ("kill -15 $$", None, "SIGTERM"),
    ("kill -11 $$", None, "SIGSEGV"),
    ("trap 'exit 143' TERM; kill -15 $$", 143, None),
    ("(exit 9) & wait $!", 9, None),
    # The first process of the namespace, or of the machine, which neither may end.
    ("kill -15 1; kill -9 1; exit 3", 3, None),
]


async def test_the_record_is_true(level: str, folder: Path) -> None:
    """128 + n is a code like any other, and not the same as a signal."""
    async with serving(folder, level) as (_, client):
        for command, code, killed_by in ENDS[: -1 if level == "none" else None]:
            ended = await client.exit(await client.run(command))
            assert (ended["code"], ended["signal"]) == (code, killed_by), (command, ended)


async def test_a_program_may_end_gracefully(level: str, folder: Path) -> None:
    async with serving(folder, level, "--kill-grace-seconds", "10") as (_, client):
        pid = await client.run("trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.05; done")
        await client.text(pid, "up")
        await client.ask("kill", pid=pid)
        ended = await client.exit(pid) if not client.output(pid).endswith("bye\n") else None
        assert "bye" in client.output(pid)
        assert ended is None or ended["code"] == 5


async def test_signals_to_everyone_stay_inside(level: str, folder: Path) -> None:
    """In strict it ends the sandbox, its holder included: the record says by which signal."""
    if level == "none":
        pytest.skip("at this level processes of one user can signal each other, as without a runtime")
    async with serving(folder, level) as (server, client):
        bystander = await client.run("echo up; exec sleep 60")
        await client.text(bystander, "up")
        before = server.server_pid()
        pid = await client.run("kill -9 -1; exit 4")
        await client.exit(pid)
        (row,) = (await client.ask("list"))["processes"]
        assert row["pid"] == bystander
        assert server.server_pid() == before


async def test_a_reload_of_the_supervisor_keeps_what_runs(level: str, folder: Path) -> None:
    """Namespaces, limits and the way to end the tree are handed over with the process."""
    async with serving(folder, level) as (server, client):
        mark = f"cling-{os.urandom(4).hex()}"
        pid = await client.spawn("python", "cling.py", mark, "stay", pty=False)
        await client.text(pid, "up")
        old = server.server_pid()
        os.kill(server.pid, signal.SIGHUP)

        async def replaced() -> bool:
            return server.server_pid() != old

        await eventually(replaced)
        async with connect(server) as again:
            attached = await again.ask("attach", pid=pid)
            assert attached["status"] == "running"
            await again.ask("kill", pid=pid)
            assert marked(mark) == []
            assert (await again.exit(await again.run("exit 6")))["code"] == 6
