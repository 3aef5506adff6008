"""Processes within others, end to end: what they share, what ends what, and what is left. Knows no
mechanism."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.sandbox.facts import HostFacts
from mhnos_runtime.sandbox.probe import landlock_abi
from mhnos_runtime.testing import TestServer
from tests.sandbox.conftest import BLIND, require
from tests.sandbox.test_ending import CLINGER, marked
from tests.sandbox.test_limits import EATER
from tests.server.client import Client, Message, connect, eventually
from tests.server.test_restart import end_server

MEMORY = 128 << 20
#: Where a process is, in one line for each word.
TELL = (
    "for each in user mnt pid net ipc uts cgroup; do echo $each $(readlink /proc/self/ns/$each); done;"
    "echo host $(hostname); echo groups $(sort /proc/self/cgroup); echo tmp $TMPDIR; echo told;"
)
STATUS = "grep -E '^(Uid|Gid|Groups|NoNewPrivs|Seccomp|CapEff|CapBnd):' /proc/self/status;"


@asynccontextmanager
async def serving(
    folder: Path, level: str, *flags: str, **variables: str
) -> AsyncIterator[tuple[TestServer, Client]]:
    flags = ("--sandbox", level, "--max-memory", str(MEMORY), "--kill-grace-seconds", "0.5", *flags)
    async with TestServer(folder / "server", *flags, environment=variables) as server:
        (server.workspace / "eat.py").write_text(EATER)
        (server.workspace / "cling.py").write_text(CLINGER)
        async with connect(server) as client:
            yield server, client


async def rows(client: Client) -> dict[int, Message]:
    return {row["pid"]: row for row in (await client.ask("list", all=True))["processes"]}


async def said(client: Client, command: str, **fields: Any) -> str:
    """All that a command says until its end."""
    pid = await client.run(command, **fields)
    await client.exit(pid)
    return client.output(pid)


@pytest.mark.parametrize("network", ["host", "loopback", "none"])
async def test_it_is_where_the_other_one_is(level: str, folder: Path, network: str) -> None:
    if network != "host" and (level == "none" or (level, network) == ("relaxed", "loopback")):
        pytest.skip("this level has no such network")
    async with serving(folder, level, "--network", network) as (_, client):
        for narrower in ({}, {"network": "none"} if level != "none" else {}):
            host = await client.run(f"{TELL}{STATUS} exec cat", **narrower)
            here = await client.text(host, "Seccomp")
            inside = await said(client, f"{TELL}{STATUS}", within=host)
            assert inside.split() == here.split()[: len(inside.split())]
            listed = await rows(client)
            guest = max(listed)
            assert listed[guest]["within"] == host
            assert "within" not in listed[host]
            assert listed[guest]["isolation"] == listed[host]["isolation"]
            assert listed[guest]["sandbox"] == level


async def test_it_sees_and_signals_the_processes_of_the_other_one(folder: Path, facts: HostFacts) -> None:
    require(facts, "strict")
    async with serving(folder, "strict") as (_, client):
        host = await client.run("trap 'echo poked' USR1; echo up $$; while :; do sleep 0.05; done")
        own = (await client.text(host, "\n")).split()[1]
        assert f" {own} " in await said(client, "ps -A -o pid=,args= | sed 's/^/ /'", within=host)
        assert await said(client, f"kill -USR1 {own} && echo $?", within=host) == "0\n"
        await client.text(host, "poked")


async def test_environment_and_folder_are_those_of_the_other_one(level: str, folder: Path) -> None:
    async with serving(folder, level) as (server, client):
        (server.workspace / "app").mkdir(mode=0o777)
        (server.workspace / "else").mkdir(mode=0o777)
        env = {"FOO": "theirs", "BAR": "kept", "PATH": "/somewhere:/usr/bin:/bin", "TERM": "dumb"}
        host = await client.run("exec cat", options={"env": env, "cwd": "/app"})
        tell = 'echo "$FOO $BAR $PATH $TERM ${PWD##*/}"'
        assert await said(client, tell, within=host) == f"theirs kept {env['PATH']} dumb app\n"
        options = {"env": {"FOO": "mine"}, "cwd": "/else"}
        on_top = await said(client, tell, within=host, options=options)
        assert on_top == f"mine kept {env['PATH']} dumb else\n"
        assert "xterm" in await said(client, tell, within=host, pty=True)


async def test_a_terminal_inside(level: str, folder: Path) -> None:
    async with serving(folder, level) as (_, client):
        host = await client.run("exec cat")
        pid = await client.spawn("shell", "bash", within=host, pty={"cols": 91, "rows": 17})
        await client.send("write", pid=pid, data="tty; stty size; exit 3\n")
        ended = await client.exit(pid)
        assert "91" in client.output(pid)
        assert "/dev/pts/" in client.output(pid)
        assert ended["code"] == 3


async def test_it_ends_with_the_other_one(level: str, folder: Path) -> None:
    """A shell at a terminal, one that ignores what it is asked, and what these have started."""
    async with serving(folder, level) as (_, client):
        mark = os.urandom(8).hex()
        host = await client.run("exec cat")
        shell = await client.spawn("shell", "bash", within=host, pty=True)
        deaf = await client.run("trap '' HUP TERM; echo up; while :; do sleep 0.1; done", within=host)
        await client.text(deaf, "up")
        clings = await client.spawn("python", "cling.py", mark, "stay", within=host, pty=False)
        await client.text(clings, "up")
        assert len(marked(mark)) == 4
        await client.ask("kill", pid=host)
        found = await rows(client)
        assert {pid: row["status"] for pid, row in found.items()} == dict.fromkeys(found, "exited")
        for pid in (shell, deaf, clings):
            ended = found[pid]["exit"]
            assert (ended["reason"], f"ended with process {host}" in ended["evidence"]) == ("killed", True)
            assert ended["endTime"] <= found[host]["exit"]["endTime"]
        assert found[deaf]["exit"]["signal"] == "SIGKILL"
        assert "ended with" not in found[host]["exit"]["evidence"]
        assert marked(mark) == []


async def test_it_ends_with_one_that_ends_by_itself(level: str, folder: Path) -> None:
    async with serving(folder, level) as (_, client):
        host = await client.run("read line; exit 5")
        guest = await client.run("exec sleep 600", within=host)
        await client.send("write", pid=host, data="\n")
        assert (await client.exit(guest))["evidence"].endswith(f"(ended with process {host})")
        ended = await client.exit(host)
        assert (ended["code"], ended["reason"]) == (5, "exit")


async def test_its_own_end_is_nobody_else_s(level: str, folder: Path) -> None:
    """Its tree ends with it, as every process's does; the other one and its neighbours go on."""
    async with serving(folder, level) as (_, client):
        mark, kept = os.urandom(8).hex(), os.urandom(8).hex()
        host = await client.spawn("python", "cling.py", kept, "stay", pty=False)
        await client.text(host, "up")
        neighbour = await client.run("exec cat", within=host)
        guest = await client.spawn("python", "cling.py", mark, "stay", within=host, pty=False)
        await client.text(guest, "up")
        await client.ask("kill", pid=guest)
        assert marked(mark) == []
        done = await client.spawn("python", "cling.py", mark, "leave", within=host, pty=False)
        assert (await client.exit(done))["code"] == 0
        assert marked(mark) == []
        assert len(marked(kept)) == 4
        found = await rows(client)
        assert (found[host]["status"], found[neighbour]["status"]) == ("running", "running")
        await client.ask("kill", pid=host)
        assert marked(kept) == []


async def test_within_one_that_is_within_means_the_same_other_one(level: str, folder: Path) -> None:
    async with serving(folder, level) as (_, client):
        host = await client.run("exec cat", options={"env": {"FOO": "host"}})
        guest = await client.run("exec cat", within=host, options={"env": {"FOO": "guest"}})
        inner = await client.run("echo $FOO; exec cat", within=guest)
        await client.text(inner, "host")
        assert (await rows(client))[inner]["within"] == host
        await client.ask("kill", pid=guest)
        assert (await rows(client))[inner]["status"] == "running"
        await client.ask("kill", pid=host)
        assert (await rows(client))[inner]["status"] == "exited"


@pytest.mark.parametrize("variables", [{}, BLIND], ids=["control groups", "watchdog"])
async def test_memory_is_that_of_both(level: str, folder: Path, variables: dict[str, str]) -> None:
    """One that takes too much ends the one whose limit it is, with all that is within."""
    async with serving(folder, level, **variables) as (_, client):
        bystander = await client.run("exec cat")
        host = await client.run("echo up; exec cat")
        other = await client.run("exec cat", within=host)
        eater = await client.spawn("python", "eat.py", "self", within=host, pty=False)
        ended = await client.exit(host)
        assert ended["reason"] == "memory", ended
        found = await rows(client)
        assert found[eater]["exit"]["reason"] in ("memory", "killed")
        assert found[other]["status"] == "exited"
        assert found[bystander]["status"] == "running"
        assert found[host]["isolation"]["limits"]["memory"] == ("watchdog" if variables else "cgroup v1") or (
            found[host]["isolation"]["limits"]["memory"] == "cgroup v2"
        )


async def test_memory_adds_up(level: str, folder: Path) -> None:
    """Each takes more than half."""
    take = f"x = bytearray({MEMORY * 6 // 10}); print('has', flush=True); input()"
    async with serving(folder, level, **BLIND) as (server, client):
        (server.workspace / "take.py").write_text(take)
        host = await client.spawn("python", "take.py", pty=False)
        await client.text(host, "has")
        guest = await client.spawn("python", "take.py", within=host, pty=False)
        assert (await client.exit(host))["reason"] == "memory"
        assert (await rows(client))[guest]["status"] == "exited"


@pytest.mark.parametrize("variables", [{}, BLIND], ids=["control groups", "no control groups"])
async def test_tasks_are_those_of_both(level: str, folder: Path, variables: dict[str, str]) -> None:
    """Where the kernel counts them it refuses one more; the watchdog ends what has too many."""
    hold = "import os, time\nfor _ in range(20):\n    if not os.fork():\n        time.sleep(600)\n"
    async with serving(folder, level, "--max-tasks", "32", **variables) as (server, client):
        (server.workspace / "hold.py").write_text(hold + "print('has', flush=True); input()")
        host = await client.spawn("python", "hold.py", pty=False)
        await client.text(host, "has")
        counted = (await rows(client))[host]["isolation"]["limits"]["tasks"]
        guest = await client.spawn("python", "hold.py", within=host, pty=False)
        ended = await client.exit(guest)
        if counted == "watchdog":
            assert "ended with" in ended["evidence"]
            assert (await client.exit(host))["reason"] == "killed"
            return
        assert "BlockingIOError" in client.output(guest)
        assert (await rows(client))[host]["status"] == "running"


async def test_what_landlock_keeps_apart(level: str, folder: Path) -> None:
    """As docs/sandbox.md tells: each start is a domain of its own."""
    code = (
        "import os, socket, sys, time; s = socket.socket(socket.AF_UNIX); s.bind('\\0' + sys.argv[1]);"
        "s.listen(); print('up', os.getpid(), flush=True); time.sleep(600)"
    )
    attempt = (
        "import os, socket, sys\nname, pid = sys.argv[1], int(sys.argv[2])\n"
        "def tried(what):\n"
        "    try:\n        what()\n        return 'yes'\n"
        "    except OSError:\n        return 'no'\n"
        "print(tried(lambda: open(f'/proc/{pid}/environ').read()), tried(lambda: os.kill(pid, 0)),"
        "tried(lambda: socket.socket(socket.AF_UNIX).connect('\\0' + name)))"
    )
    async with serving(folder, level) as (server, client):
        (server.workspace / "listen.py").write_text(code)
        (server.workspace / "attempt.py").write_text(attempt)
        name = os.urandom(8).hex()
        host = await client.spawn("python", "listen.py", name, pty=False)
        own = (await client.text(host, "\n")).split()[1]
        guest = await client.spawn("python", "attempt.py", name, own, within=host, pty=False)
        await client.exit(guest)
        scoped = landlock_abi() >= 6 and level != "none"
        signals = "no" if scoped and level == "relaxed" else "yes"
        reads = "yes" if level == "none" else "no"
        assert client.output(guest).split() == [reads, signals, "no" if scoped else "yes"]


async def test_what_cannot_be(level: str, folder: Path) -> None:
    async with serving(folder, level) as (_, client):

        async def refused(**fields: Any) -> Message:
            answer = await client.ask("spawn", processType="shell", command="true", **fields)
            assert answer["type"] == "error"
            return answer

        assert (await refused(within=999))["code"] == "unknown-process"
        host = await client.run("exec cat")
        for fields in ({"network": "host"}, {"limits": {"tasks": 5}}):
            answer = await refused(within=host, **fields)
            assert (answer["code"], str(host) in answer["error"]) == ("invalid-argument", True)
        answer = await client.ask("plan", processType="shell", command="true", within=host)
        assert (answer["type"], answer["code"]) == ("error", "invalid-argument")
        ending = await client.run("trap '' TERM; echo up; while :; do sleep 0.05; done")
        await client.text(ending, "up")
        await client.send("kill", pid=ending)
        for what in ("is ending", "has ended"):
            # The answer comes behind that of the kill, and so after the end.
            answer = await refused(within=ending)
            assert (answer["code"], what in answer["error"]) == ("not-running", True)
            assert "ps" in answer["hint"]


async def test_it_counts_as_a_process(folder: Path, facts: HostFacts) -> None:
    require(facts, "none")
    async with serving(folder, "none", "--max-processes", "2") as (_, client):
        host = await client.run("exec cat")
        await client.run("exec cat", within=host)
        answer = await client.ask("spawn", processType="shell", command="true", within=host)
        assert answer["code"] == "too-many-processes"


async def test_another_server_and_another_supervisor_know_who_is_within(level: str, folder: Path) -> None:
    async with serving(folder, level) as (server, first):
        host = await first.run("exec cat", options={"env": {"FOO": "kept"}})
        guest = await first.run("exec cat", within=host)
        await end_server(server, signal.SIGKILL)
        async with connect(server) as client:
            assert (await rows(client))[guest]["within"] == host
        await end_server(server, signal.SIGHUP)
        async with connect(server) as client:
            assert (await rows(client))[guest]["within"] == host
            inside = await said(client, f"{TELL} echo $FOO", within=host)
            assert inside.endswith("kept\n")
            assert inside.split() == (await said(client, f"{TELL} echo $FOO", within=guest)).split()
            await client.ask("kill", pid=host)
            found = await rows(client)
            assert f"ended with process {host}" in found[guest]["exit"]["evidence"]


async def test_nothing_is_left_of_many(level: str, folder: Path) -> None:
    """No descriptor, no control group, no holder, no folder for temporary files."""
    async with serving(folder, level, "--retain-count", "5", "--max-processes", "100") as (server, client):
        host = await client.run("exec cat")
        await said(client, "true", within=host)

        async def start(times: int) -> None:
            """Each leaves an orphan behind."""
            for _ in range(times):
                begun = len(client.seen)
                pids = {await client.run("sleep 600 & exit", within=host) for _ in range(10)}
                while not pids <= {m["pid"] for m in client.seen[begun:] if m["type"] == "exit"}:
                    await client.next()

        def there() -> tuple[int, int, int]:
            group = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text()
            return len(os.listdir(f"/proc/{server.pid}/fd")), len(group.split()), _groups(server)

        await start(1)
        before = there()
        await start(20)

        async def as_before() -> bool:
            now = there()
            return all(new <= old + 2 for new, old in zip(now, before, strict=True))

        await asyncio.wait_for(eventually(as_before), 20)


def _groups(server: TestServer) -> int:
    """Control groups of this runtime, in all hierarchies; groups of others may vanish meanwhile."""
    return sum(
        name.startswith("p")
        for path, names, _ in os.walk("/sys/fs/cgroup")
        if os.path.basename(path) == f"mhnos-{server.pid}"
        for name in names
    )
