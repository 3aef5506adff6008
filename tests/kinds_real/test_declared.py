"""Kinds that an operator declares, at every level: how they get ports, and how it is known that they serve.

Programs in Python; the runtime is to know nothing of them but what the config file says.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from mhnos_runtime.sandbox.facts import HostFacts
from tests.kinds_real.conftest import ARENAS, Arena, opened
from tests.sandbox.conftest import place, require
from tests.server.client import connect, eventually

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

KINDS = """
[kinds.handed]
argv = ["python3", "{command}", "{socket}", "{args}"]

[kinds.line]
argv = ["python3", "{command}", "{args}"]
ready = { line = "^serving on \\\\d+$", timeout_seconds = 20 }

[kinds.port]
argv = ["python3", "{command}", "{port}", "{args}"]
ready = { port = "main", timeout_seconds = 20 }

[kinds.http]
argv = ["python3", "{command}", "{port:http}", "{args}"]
ready = { url = "http://127.0.0.1:{port:http}/health", line = "^healthy", timeout_seconds = 20 }

[kinds.never]
argv = ["python3", "{command}", "{port}", "{args}"]
ready = { url = "http://127.0.0.1:{port}/health", line = "never said", timeout_seconds = 0.5 }

[kinds.secret]
argv = ["python3", "-c", "import os; print(os.environ['TOKEN'] + '.' + os.environ['AT'])"]
env = { TOKEN = "{token}", AT = "{home}" }

[kinds.alone]
argv = ["python3", "{command}"]
single = true

[kinds.large]
argv = ["python3", "{command}"]
needed_memory_bytes = 4000000000
"""
#: Answers on a port, or on a descriptor; sick for as long as the file "sick" is there.
SERVE = """
import http.server, os, socket, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if os.path.exists("sick") else 200)
        self.end_headers()
        self.wfile.write(b"hello")
    def log_message(self, *_): pass
number = int(sys.argv[1])
if "handed" in sys.argv:
    server = http.server.HTTPServer(("127.0.0.1", 0), Handler, False)
    server.socket = socket.socket(fileno=number)
else:
    server = http.server.HTTPServer(("127.0.0.1", number), Handler)
print("healthy", flush=True)
server.serve_forever()
"""
SPEAK = """
import sys, time
sys.stdout.write("not yet\\nserv"); sys.stdout.flush()
time.sleep(float(sys.argv[1]))
sys.stdout.write("ing on \\x1b[32m42\\x1b[0m\\r\\n"); sys.stdout.flush()
time.sleep(600)
"""
WAIT = "import time\ntime.sleep(600)\n"
FAIL = "import sys\nsys.exit(3)\n"
PROGRAMS = {"serve.py": SERVE, "speak.py": SPEAK, "wait.py": WAIT, "fail.py": FAIL}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ARENAS, ids="-".join)
async def arena(request: pytest.FixtureRequest, facts: HostFacts) -> AsyncIterator[Arena]:
    level, network = request.param
    require(facts, level)
    folder = place()
    (folder / "config.toml").write_text(KINDS)
    flags = ("--config", str(folder / "config.toml"), "--kill-grace-seconds", "1", "--max-memory", "1g")
    try:
        async with opened(folder, folder / "engines", level, network, *flags) as arena:
            for name, text in PROGRAMS.items():
                arena.write(name, text)
            yield arena
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def test_a_socket_that_is_handed_over(arena: Arena) -> None:
    pid = await arena.client.spawn("handed", "serve.py", "handed")
    row = await arena.record(pid)
    (port,) = row["ports"]
    assert (port["name"], port["address"]) == ("main", "127.0.0.1")
    # Nobody was told how to see that it serves.
    assert "ready" not in row
    assert await arena.get(f"http://127.0.0.1:{port['port']}/") == "hello"
    await arena.client.ask("kill", pid=pid)
    # Neither the server nor the supervisor has kept a copy.
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port["port"])):
        pass


async def test_the_same_over_many_starts(arena: Arena) -> None:
    """Descriptors that stay open somewhere would add up."""
    counts = []
    for _ in range(12):
        pid = await arena.client.spawn("handed", "wait.py")
        await arena.client.ask("kill", pid=pid)
        counts.append(_sockets(arena.server.pid) + _sockets(arena.server.server_pid()))
    # Two more or less: the sockets of children that wait for the next start, or are just being made.
    assert min(counts[6:]) - min(counts[:6]) <= 2


def _sockets(os_pid: int) -> int:
    """How many sockets a process has open."""
    found = 0
    for fd in os.listdir(f"/proc/{os_pid}/fd"):
        with contextlib.suppress(OSError):
            found += os.readlink(f"/proc/{os_pid}/fd/{fd}").startswith("socket:")
    return found


async def test_ready_by_a_line(arena: Arena) -> None:
    pid = await arena.client.spawn("line", "speak.py", "0.3")
    assert (await arena.settled(pid))["ready"] == {"state": "ready"}
    assert "serving on" in arena.client.output(pid)


async def test_ready_by_a_port(arena: Arena) -> None:
    pid = await arena.client.spawn("port", "serve.py")
    row = await arena.record(pid)
    if not arena.outside:
        # Nobody outside can see it, and nothing else was declared.
        assert "ready" not in row
        assert row["ports"][0]["address"] is None
        return
    (port,) = (await arena.settled(pid))["ports"]
    assert (await arena.record(pid))["ready"] == {"state": "ready"}
    assert await arena.get(f"http://{port['address']}:{port['port']}/") == "hello"


async def test_ready_by_a_url(arena: Arena) -> None:
    """Where the URL cannot be reached the line decides."""
    (arena.server.workspace / "sick").touch()
    pid = await arena.client.spawn("http", "serve.py")
    await arena.client.text(pid, "healthy")
    if arena.outside:
        assert (await arena.record(pid))["ready"] == {"state": "starting"}
    (arena.server.workspace / "sick").unlink()
    assert (await arena.settled(pid))["ready"] == {"state": "ready"}
    (port,) = (await arena.record(pid))["ports"]
    assert port.get("url") == (f"http://127.0.0.1:{port['port']}" if arena.outside else None)


async def test_an_asked_port(arena: Arena) -> None:
    with socket.create_server(("127.0.0.1", 0)) as used:
        number = used.getsockname()[1]
        if arena.outside:
            answer = await arena.client.ask(
                "spawn", processType="http", command="serve.py", ports={"http": number}
            )
            assert answer["code"] == "port-in-use"
    pid = await arena.client.spawn("http", "serve.py", ports={"http": number})
    assert (await arena.settled(pid))["ports"][0]["port"] == number


@pytest.mark.parametrize(
    ("ports", "said"),
    [
        ({"other": 0}, "has no port 'other'"),
        ({"http": 80}, "expected 0 for any, or 1024 to 65535"),
        ({"../http": 0}, "is not a name"),
        ({f"p{number}": 0 for number in range(40)}, "too many"),
        ({"http": 70_000}, "ports"),
    ],
)
async def test_ports_that_cannot_be_asked_for(arena: Arena, ports: dict[str, int], said: str) -> None:
    answer = await arena.client.ask("spawn", processType="http", command="serve.py", ports=ports)
    assert (answer["type"], answer["code"]) == ("error", "invalid-argument")
    assert said in answer["error"]


async def test_one_that_is_never_ready(arena: Arena) -> None:
    """It is said so, once, and the process goes on."""
    pid = await arena.client.spawn("never", "wait.py")
    row = await arena.settled(pid)
    assert row["ready"] == {"state": "failed", "reason": "not ready after 0.5 s"}
    assert row["status"] == "running"
    await arena.client.quiet()
    told = [m for m in arena.client.seen if m["type"] == "ready" and m["pid"] == pid]
    assert [m["state"] for m in told] == ["starting", "failed"]


async def test_one_that_ends_before(arena: Arena) -> None:
    pid = await arena.client.spawn("line", "fail.py")
    ended = await arena.ended(pid)
    assert (await arena.record(pid))["ready"] == {
        "state": "failed", "reason": "it ended before it was ready",
    }  # fmt: skip
    # Why it ended, only workerd's and the like can be asked.
    assert "failure" not in ended
    told = [m for m in arena.client.seen if m.get("pid") == pid and m["type"] in ("ready", "exit")]
    # That it was starting may not have been told by then.
    assert [m["type"] for m in told[-2:]] == ["ready", "exit"]
    assert [m["state"] for m in told[:-1]] in (["starting", "failed"], ["failed"])


async def test_a_token(arena: Arena) -> None:
    pid = await arena.client.spawn("secret")
    await arena.ended(pid)
    token, home = arena.client.output(pid).strip().split(".", 1)
    assert len(token) >= 32
    assert home == ("/workspace" if arena.level == "strict" else str(arena.server.workspace))
    assert (await arena.client.ask("credentials", pid=pid))["token"] == token
    other = await arena.client.spawn("secret")
    assert (await arena.client.ask("credentials", pid=other))["token"] != token
    assert token not in str(await arena.record(pid)) + arena.server.log.read_text()
    plain = await arena.client.spawn("handed", "wait.py")
    assert (await arena.client.ask("credentials", pid=plain)).get("token") is None
    assert (await arena.client.ask("credentials", pid=9999))["code"] == "unknown-process"


async def test_one_at_a_time(arena: Arena) -> None:
    asked = [asyncio.create_task(_answer(arena, processType="alone", command="wait.py")) for _ in range(5)]
    answers = await asyncio.gather(*asked)
    started = [answer["pid"] for answer in answers if answer["type"] == "spawned"]
    assert len(started) == 1
    assert {answer.get("code") for answer in answers} == {None, "already-running"}
    await arena.client.ask("kill", pid=started[0])
    await arena.client.ask("kill", pid=await arena.client.spawn("alone", "wait.py"))


async def _answer(arena: Arena, **fields: str) -> dict[str, object]:
    async with connect(arena.server) as client:
        return await client.ask("spawn", **fields)


async def test_one_that_needs_more_memory_than_there_is(arena: Arena) -> None:
    answer = await arena.client.ask("spawn", processType="large", command="wait.py")
    assert (answer["type"], answer["code"]) == ("error", "limit-too-small")
    assert "needs 4000 MB of memory, and the limit is 1074 MB" in answer["error"]


async def test_clients_of_1_0_hear_nothing_new(arena: Arena) -> None:
    async with connect(arena.server) as old:
        pid = await old.spawn("line", "speak.py", "0")
        await old.text(pid, "42")
        await arena.settled(pid)
        await old.ask("kill", pid=pid)
        assert {m["type"] for m in old.seen} <= {"connected", "spawned", "stdout", "exit", "killed"}


@pytest.mark.parametrize("how", ["killed", "reloaded"])
async def test_the_next_server_goes_on_looking(arena: Arena, folder: Path, how: str) -> None:
    (folder / "config.toml").write_text(KINDS)
    flags = ("--config", str(folder / "config.toml"))
    async with opened(folder, folder / "engines", arena.level, arena.network, *flags) as own:
        for name, text in PROGRAMS.items():
            own.write(name, text)
        slow = await own.client.spawn("line", "speak.py", "2")
        never = await own.client.spawn("never", "wait.py")
        known = await own.client.spawn("line", "speak.py", "0")
        await own.settled(known)
        first = own.server.server_pid()
        if how == "killed":
            os.kill(first, signal.SIGKILL)
        else:
            os.kill(own.server.pid, signal.SIGHUP)

        async def next_one() -> bool:
            return own.server.server_pid() != first

        await eventually(next_one)
        async with connect(own.server, newer=True) as client:
            own.client = client
            assert (await own.record(known))["ready"] == {"state": "ready"}
            assert (await own.settled(slow))["ready"] == {"state": "ready"}
            assert (await own.settled(never))["ready"]["state"] == "failed"
            await client.ask("attach", pid=slow)
            # The answer has it: it is no news.
            assert not [m for m in client.seen if m["type"] == "ready"]
