"""In a control group that systemd delegates to the runtime, by cgroup v2: limits, and the rules of that tree.

Knows systemd-run; skipped where no systemd gives a group.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from pathlib import Path

import pytest

from mhnos_runtime.testing import TestServer
from tests.sandbox.test_limits import EATER, MEMORY
from tests.server.client import Client, connect, eventually

ROOT = Path("/sys/fs/cgroup")
FLAGS = (
    *("--max-memory", str(MEMORY), "--max-tasks", "30", "--max-cpu", "400", "--kill-grace-seconds", "0.5"),
)


@pytest.fixture
async def prefix() -> tuple[str, ...]:
    """A command that executes another in a delegated group of its own."""
    if shutil.which("systemd-run") is None or not (ROOT / "cgroup.controllers").exists():
        pytest.skip("no systemd with cgroup v2")
    user = () if os.geteuid() == 0 else ("--user",)
    command = ("systemd-run", *user, "--quiet", "--scope", "-p", "Delegate=yes", "--")
    tried = await asyncio.create_subprocess_exec(*command, "true", stderr=asyncio.subprocess.PIPE)
    _output, said = await tried.communicate()
    if tried.returncode:
        pytest.skip(f"systemd gives no group: {said.decode().strip()}")
    return command


def group_of(os_pid: int) -> Path:
    line = Path(f"/proc/{os_pid}/cgroup").read_text().strip()
    return ROOT / line.removeprefix("0::/")


async def starve(client: Client) -> None:
    pid = await client.spawn("python", "eat.py", "child")
    ended = await client.exit(pid)
    assert (ended["reason"], ended["signal"]) == ("memory", "SIGKILL"), ended
    assert MEMORY * 0.8 <= ended["maxRssBytes"] <= MEMORY * 1.2


@pytest.mark.parametrize("how", [signal.SIGHUP, signal.SIGKILL])
async def test_limits_in_a_delegated_group(
    prefix: tuple[str, ...], level: str, folder: Path, how: signal.Signals
) -> None:
    """Before and after a reload or the end of a server, and nothing is left of it."""
    async with TestServer(folder / "server", "--sandbox", level, *FLAGS, prefix=prefix) as server:
        (server.workspace / "eat.py").write_text(EATER)
        async with connect(server) as client:
            delegated = group_of(server.pid).parent
            bystander = await client.run("echo up; exec sleep 600")
            await client.text(bystander, "up")
            await starve(client)
            (row,) = (await client.ask("list"))["processes"]
            assert row["pid"] == bystander
            assert row["isolation"]["limits"]["memory"] == row["isolation"]["limits"]["tasks"] == "cgroup v2"
            own = group_of(row["osPid"])
            assert own == delegated / f"mhnos-{server.pid}" / f"p{bystander}"
        old = server.server_pid()
        os.kill(server.pid if how == signal.SIGHUP else old, how)

        async def replaced() -> bool:
            return server.server_pid() != old

        await eventually(replaced)
        async with connect(server) as client:
            await starve(client)
            assert group_of(row["osPid"]) == own
        assert [path.name for path in own.parent.iterdir() if path.is_dir()] == [own.name]
        check_rules(delegated)
    assert not own.parent.exists()


def check_rules(delegated: Path) -> None:
    """A group has processes or gives controllers to children, never both (cgroups(7))."""
    for path in map(Path, (found for found, *_ in os.walk(delegated))):
        processes = (path / "cgroup.procs").read_text()
        children = (path / "cgroup.subtree_control").read_text().split()
        assert not (processes and children), path
        if path.name.startswith("mhnos-"):
            assert {"memory", "pids"} <= set(children)
