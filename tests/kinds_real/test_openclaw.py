"""The real OpenClaw gateway at every level: its start, its state, its token, its commands and its end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import aiohttp
import pytest

from mhnos_runtime import proc
from mhnos_runtime.sandbox.facts import HostFacts
from tests.kinds_real import compiled
from tests.kinds_real.conftest import ARENAS, PATIENCE, Arena, opened
from tests.sandbox.conftest import require

pytestmark = [pytest.mark.timeout(300)]

FLAGS = ("--max-memory", "2g")
#: More than its kind's 15 s: on a busy machine Node.js alone may take those to leave after a clean end.
PATIENT = (*FLAGS, "--kill-grace-seconds", "60")
IMPATIENT = {"PYTHONPATH": str(Path(__file__).parent / "no_patience")}
LOG = ".openclaw/logs/openclaw.log"


@pytest.mark.parametrize(("level", "network"), ARENAS, ids=map("-".join, ARENAS))
async def test_its_whole_life(
    level: str, network: str, facts: HostFacts, folder: Path, engines: Path
) -> None:
    """Without an API key, and in strict-none without network. In strict-host its start is a cold one."""
    require(facts, level)
    async with opened(folder, engines, level, network, *PATIENT) as arena:
        if (level, network) != ("strict", "host"):
            await asyncio.to_thread(compiled.give, arena.server.workspace, engines)
        pid = await arena.client.spawn("openclaw", "start")
        row = await arena.record(pid)
        assert row["ready"] == {"state": "starting"}
        row = await arena.settled(pid, PATIENCE)
        assert row["ready"] == {"state": "ready"}, arena.client.output(pid)
        (port,) = row["ports"]
        assert port["name"] == "gateway"
        assert (arena.server.workspace / ".openclaw" / "state").is_dir()
        assert (arena.server.workspace / LOG).stat().st_size
        token = (await arena.client.ask("credentials", pid=pid))["token"]
        await _keeps_its_token(arena, pid, token)
        if arena.outside:
            await _is_used(arena, pid, port, token)
        else:
            assert port["address"] is None
        await _ends(arena, pid)
        # Nobody writes there any more.
        left = await asyncio.to_thread(_texts, arena.server.workspace)
        assert len(left) > 10
        assert not [text[:200] for text in left if token in text]
        await _has_kept_what_it_compiled(arena)
        await asyncio.to_thread(compiled.keep, arena.server.workspace, engines)


async def _keeps_its_token(arena: Arena, pid: int, token: str) -> None:
    """It stands in no record, log or argument list, and no other process has it."""
    assert len(token) >= 32
    texts = [str(await arena.record(pid)), arena.server.log.read_text(), arena.client.output(pid)]
    (arena.server.workspace / "look.py").write_text(
        "import os, pathlib\n"
        "for path in ('cmdline', *(['environ'] if os.environ['LEVEL'] != 'none' else [])):\n"
        "    for each in pathlib.Path('/proc').glob(f'[0-9]*/{path}'):\n"
        "        try:\n            print(each.read_bytes())\n"
        "        except OSError:\n            pass\n"
    )
    look = await arena.client.spawn("python", "look.py", options={"env": {"LEVEL": arena.level}})
    await arena.ended(look)
    assert "look.py" in arena.client.output(look)
    texts.append(arena.client.output(look))
    assert not [text[:200] for text in texts if token in text]


def _texts(folder: Path) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size < 10_000_000]
    return [path.read_bytes().decode(errors="replace") for path in files]


async def _is_used(arena: Arena, pid: int, port: dict[str, object], token: str) -> None:
    """By HTTP, by WebSocket with and without its token, and by its own commands; and there is one of it."""
    url = str(port["url"])
    assert json.loads(await arena.get(f"{url}/readyz"))["ready"] is True
    # On loopback only.
    os_pid = (await arena.record(pid))["osPid"]
    assert await asyncio.to_thread(proc.listens_on, os_pid, int(str(port["port"]))) == "127.0.0.1"
    assert (await _greet(arena, url, token))["ok"] is True
    assert (await _greet(arena, url, "wrong" + token))["ok"] is False
    again = await arena.client.ask("spawn", processType="openclaw", command="gateway")
    assert (again["type"], again["code"]) == ("error", "already-running")
    health = await arena.client.spawn("openclaw", "gateway", "health")
    while (ended := [m for m in arena.client.seen if m["type"] == "exit" and m["pid"] == health]) == []:
        await arena.client.next(PATIENCE)
    assert ended[0]["code"] == 0, arena.client.output(health)
    assert "OK" in arena.client.output(health)


async def _greet(arena: Arena, url: str, token: str) -> dict[str, object]:
    """The first request of its protocol, as its command line sends it; the answer."""
    client = {"id": "cli", "version": "1", "platform": "linux", "mode": "cli"}
    params = {
        "minProtocol": 1,
        "maxProtocol": 99,
        "client": client,
        "auth": {"token": token},
        "role": "operator",
        "scopes": ["operator.read"],
    }
    async with arena.http.ws_connect(url) as connection:
        await connection.send_json({"type": "req", "id": "1", "method": "connect", "params": params})
        while True:
            frame = await connection.receive(timeout=20)
            assert frame.type is aiohttp.WSMsgType.TEXT, frame
            message: dict[str, object] = json.loads(frame.data)
            if message.get("id") == "1":
                return message


async def _ends(arena: Arena, pid: int) -> None:
    """With its children, and in order: it has the time for that."""
    os_pid = (await arena.record(pid))["osPid"]
    tree = await asyncio.to_thread(proc.descendants, [os_pid])
    await arena.client.ask("kill", pid=pid)
    ended = await arena.ended(pid)
    assert (ended["code"], ended["reason"]) == (0, "killed"), arena.client.output(pid)
    assert "completed cleanly" in arena.client.output(pid)
    assert not [each for each in tree if os.path.exists(f"/proc/{each}")]


async def _has_kept_what_it_compiled(arena: Arena) -> None:
    """The next start uses it: without, each took 2 s longer. With what OpenClaw caches, a workspace was too
    large to be pulled."""
    cache = arena.server.workspace / ".openclaw" / "cache"
    assert len([path for path in (cache / "node").rglob("*") if path.is_file()]) > 1000
    pulled = await arena.client.ask("fsync", operation="pull")
    assert pulled["status"] == "success", pulled
    paths = [file["path"] for file in pulled["files"]]
    assert "/.openclaw/openclaw.json" in paths
    assert not [path for path in paths if path.startswith("/.openclaw/cache")]
    told = {"NODE_DEBUG_NATIVE": "COMPILE_CACHE"}
    again = await arena.client.spawn("openclaw", "--version", options={"env": told})
    await arena.ended(again)
    assert "openclaw.mjs was accepted" in arena.client.output(again)


@pytest.mark.parametrize("level", ["strict", "none"])
async def test_one_that_never_becomes_ready(
    level: str, facts: HostFacts, folder: Path, engines: Path
) -> None:
    """It is said so, and it goes on as it is, until it is ended."""
    require(facts, level)
    async with opened(folder, engines, level, "host", *FLAGS, **IMPATIENT) as arena:
        pid = await arena.client.spawn("openclaw", "start")
        os_pid = (await arena.record(pid))["osPid"]
        os.kill(os_pid, signal.SIGSTOP)
        row = await arena.settled(pid)
        assert row["ready"] == {"state": "failed", "reason": "not ready after 5 s"}
        assert row["status"] == "running"
        told = [m for m in arena.client.seen if m["type"] == "ready" and m["pid"] == pid]
        assert told[-1]["state"] == "failed"
        again = await arena.client.ask("spawn", processType="openclaw", command="start")
        assert again["code"] == "already-running"
        await arena.client.ask("kill", pid=pid)
        ended = await arena.ended(pid)
        assert (ended["signal"], ended["reason"]) == ("SIGTERM", "killed")
        assert not os.path.exists(f"/proc/{os_pid}")
        assert (await arena.record(pid))["ready"] == row["ready"]


async def test_it_is_off_unless_it_is_allowed(folder: Path, engines: Path) -> None:
    async with opened(folder, engines, "none", "host", MHNOS_ALLOW_OPENCLAW="false") as arena:
        answer = await arena.client.ask("spawn", processType="openclaw", command="start")
        assert (answer["error"], answer["code"]) == (
            "OpenClaw is not enabled in this runtime", "kind-disabled",
        )  # fmt: skip
        assert arena.client.hello["config"]["allowOpenClaw"] is False


async def test_what_is_refused(folder: Path, engines: Path) -> None:
    async with opened(folder, engines, "none", "host", "--max-memory", "512m") as arena:
        for args, code, said in (
            ([], "limit-too-small", "openclaw needs 1000 MB of memory, and the limit is 537 MB"),
            (["--bind", "lan"], "invalid-argument", "--bind is set by the runtime"),
            (["--auth=none"], "invalid-argument", "--auth is set by the runtime"),
            (["run", "--token", "x"], "invalid-argument", "--token is set by the runtime"),
            (["--port", "80"], "invalid-argument", "--port is '80'"),
        ):
            answer = await arena.client.ask("spawn", processType="openclaw", command="gateway", args=args)
            assert (answer["type"], answer["code"]) == ("error", code), answer
            assert said in answer["error"]
    async with opened(folder / "bare", folder / "none", "none", "host") as arena:
        answer = await arena.client.ask("spawn", processType="openclaw", command="start")
        assert answer["code"] == "engine-missing"
        assert "mhnos-runtime engines install" in answer["hint"]
