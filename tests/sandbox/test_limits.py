"""Limits, end to end: what exceeds them ends alone, and its record says why. Knows no mechanism."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mhnos_runtime.sandbox.facts import HostFacts
from mhnos_runtime.testing import TestServer
from tests.sandbox.conftest import BLIND, require
from tests.server.client import Client, Message, connect, eventually

MEMORY = 128 << 20
EATER = """
import os, sys, time
print("up", flush=True)
if sys.argv[1] == "child" and os.fork():
    time.sleep(60)
kept = []
while True:
    kept.append(bytearray(os.urandom(1)) * (4 << 20))
"""


@asynccontextmanager
async def serving(folder: Path, level: str, *flags: str, **variables: str) -> AsyncIterator[Client]:
    flags = ("--sandbox", level, "--max-memory", str(MEMORY), "--kill-grace-seconds", "0.5", *flags)
    async with TestServer(folder / "server", *flags, environment=variables) as server:
        (server.workspace / "eat.py").write_text(EATER)
        async with connect(server) as client:
            yield client


@pytest.mark.parametrize("who", ["self", "child"])
async def test_too_much_memory_ends_that_process_only(level: str, folder: Path, who: str) -> None:
    async with serving(folder, level) as client:
        bystander = await client.run("echo up; exec sleep 60")
        eater = await client.spawn("python", "eat.py", who)
        ended = await client.exit(eater)
        assert (ended["reason"], ended["signal"]) == ("memory", "SIGKILL"), ended
        assert MEMORY * 0.8 <= ended["maxRssBytes"] <= MEMORY * 1.2
        (row,) = (await client.ask("list"))["processes"]
        assert row["pid"] == bystander


@pytest.mark.parametrize("who", ["self", "child"])
async def test_too_much_memory_without_control_groups(level: str, folder: Path, who: str) -> None:
    async with serving(folder, level, **BLIND) as client:
        eater = await client.spawn("python", "eat.py", who)
        await client.text(eater, "up")
        (row,) = (await client.ask("list"))["processes"]
        assert row["isolation"]["limits"]["memory"] == "watchdog"
        ended = await client.exit(eater)
        assert (ended["reason"], ended["signal"]) == ("memory", "SIGKILL"), ended
        assert ended["maxRssBytes"] > MEMORY


async def test_a_request_can_only_narrow(level: str, folder: Path) -> None:
    async with serving(folder, level) as client:
        pid = await client.spawn("python", "eat.py", "self", limits={"memoryBytes": MEMORY // 2})
        ended = await client.exit(pid)
        assert ended["reason"] == "memory"
        assert ended["maxRssBytes"] < MEMORY * 0.8
        pid = await client.spawn("python", "eat.py", "self", limits={"memoryBytes": MEMORY * 100})
        ended = await client.exit(pid)
        assert ended["reason"] == "memory"
        assert ended["maxRssBytes"] <= MEMORY * 1.3


async def test_processor_time(level: str, folder: Path) -> None:
    async with serving(folder, level, "--max-cpu-seconds", "1") as client:
        pid = await client.run("while :; do :; done")
        ended = await client.exit(pid)
        assert ended["signal"] in ("SIGXCPU", "SIGKILL")
        # The kernel's clock for limits and its account differ by what a busy host takes away.
        assert 500 <= ended["cpuMs"] < 5000


async def test_share_of_processor(level: str, folder: Path) -> None:
    """A fifth of a CPU for a second and a half of wall time. Where the runtime can use no control group for
    CPU, it says so, and starts the process all the same."""
    async with serving(folder, level, "--max-cpu", "20") as client:
        pid = await client.run("while :; do :; done", options={"timeout": 1500})
        (row,) = (await client.ask("list"))["processes"]
        if row["isolation"]["limits"]["cpu"] == "none":
            pytest.skip("this host has no control group for CPU that can be used")
        ended = await client.exit(pid)
        assert ended["reason"] == "timeout"
        assert ended["cpuMs"] < 700


async def test_tasks_of_a_fork_bomb(level: str, folder: Path) -> None:
    """The bomb is stopped at the limit, and nothing of it is left afterwards."""
    async with serving(folder, level, "--max-tasks", "30") as client:
        pid = await client.run("echo up; bomb() { bomb | bomb & wait; }; bomb", options={"timeout": 1500})
        ended = await client.exit(pid)
        assert ended["reason"] in ("timeout", "exit", "killed"), ended
        assert (await client.ask("list"))["processes"] == []


async def test_wall_time_and_file_size(level: str, folder: Path) -> None:
    async with serving(folder, level, "--max-file-size", "1m") as client:
        pid = await client.run("exec 2>/dev/null; head -c 3000000 /dev/zero > big; echo $?; wc -c < big")
        await client.exit(pid)
        assert client.output(pid).split()[-1] == str(1 << 20)


async def test_a_runtime_that_is_spared_when_memory_runs_out_does_not_spare_its_processes(
    level: str, folder: Path
) -> None:
    """At a score of -1000 the kernel kills nobody, not for a limit either: that process would never end."""
    prefix = ("/bin/sh", "-c", 'echo -500 > /proc/self/oom_score_adj && exec "$@"', "sh")
    tried = await asyncio.create_subprocess_exec(*prefix, "true", stderr=asyncio.subprocess.DEVNULL)
    if await tried.wait():
        pytest.skip("that takes the capability SYS_RESOURCE")
    async with TestServer(folder / "server", "--sandbox", level, prefix=prefix) as server:
        assert Path(f"/proc/{server.pid}/oom_score_adj").read_text() == "-500\n"
        async with connect(server) as client:
            for _ in range(2):  # the child that is forked in advance, and the next one
                pid = await client.run("cat /proc/self/oom_score_adj")
                await client.exit(pid)
                assert client.output(pid) == "0\n"


def groups(name: str) -> list[Path]:
    """Control groups whose path has this name in it, in all hierarchies."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup"):
            found += [Path(path) for path, *_ in os.walk(before.split()[4]) if name in Path(path).parts]
    return found


def membership(row: Message) -> list[str]:
    """Of a process that is listed (proc_pid_cgroup(5))."""
    return Path(f"/proc/{row['osPid']}/cgroup").read_text().splitlines()


async def test_no_control_group_is_left(folder: Path, facts: HostFacts) -> None:
    """Not of a process, not of those that were made in its own, and not of the runtime."""
    require(facts, "none")
    async with serving(folder, "none") as client:
        pid = await client.run("echo up; read line")
        await client.text(pid, "up")
        (row,) = (await client.ask("list"))["processes"]
        named = {line.split("/")[-2] for line in membership(row) if "/mhnos-" in line}
        assert bool(named) is row["isolation"]["limits"]["memory"].startswith("cgroup")
        for name in named:
            own = [path for path in groups(name) if path.name == f"p{pid}"]
            assert own
            for path in own:
                (path / "made" / "inside").mkdir(parents=True)
        await client.ask("closeStdin", pid=pid)
        await client.exit(pid)
        assert [path for name in named for path in groups(name) if f"p{pid}" in path.parts] == []
    assert [path for name in named for path in groups(name)] == []


async def test_the_next_one_is_in_its_control_groups_in_advance(level: str, folder: Path) -> None:
    """With the limits of whoever it is then: as those before, or with others, which are other groups."""
    async with serving(folder, level) as client:
        await client.run("echo up; exec sleep 60")
        (row,) = (await client.ask("list"))["processes"]
        if not row["isolation"]["limits"]["memory"].startswith("cgroup"):
            pytest.skip("this host has no control group that can be used")
        (name,) = {line.split("/")[-2] for line in membership(row) if "/mhnos-" in line}

        async def joined(pid: int) -> bool:
            own = [path / "cgroup.procs" for path in groups(name) if path.name == f"p{pid}"]
            return bool(own) and all(procs.read_text() for procs in own)

        await eventually(lambda: joined(row["pid"] + 1))
        eater = await client.spawn("python", "eat.py", "child")
        assert eater == row["pid"] + 1
        assert (await client.exit(eater))["reason"] == "memory"
        await eventually(lambda: joined(eater + 1))
        other = await client.run("echo up; exec sleep 60", limits={"cpuPercent": 50})
        row = next(row for row in (await client.ask("list"))["processes"] if row["pid"] == other)
        held = [limit for limit in row["isolation"]["limits"].values() if limit.startswith("cgroup")]
        own = [line for line in membership(row) if line.endswith(f"/{name}/p{other}")]
        assert len(own) == (1 if held == ["cgroup v2"] * len(held) else len(held))


async def test_many_at_once_do_not_wait_for_each_other(level: str, folder: Path) -> None:
    """Each has its own limits and namespaces; forty are there at the same time."""
    async with serving(folder, level) as client:
        pids = await asyncio.gather(*(_spawn(client, number) for number in range(1)))
        pids += [await client.run("echo up; exec sleep 600") for _ in range(39)]
        rows = (await client.ask("list"))["processes"]
        assert len(rows) == len(pids) == 40
        assert len({row["osPid"] for row in rows}) == 40
        assert all(os.path.exists(f"/proc/{row['osPid']}") for row in rows)


async def _spawn(client: Client, _number: int) -> int:
    return await client.run("echo up; exec sleep 600")
