"""Real workerd at every level: served by HTTP and WebSocket, configs given and made, faults, ends."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import signal
import socket
import time
from pathlib import Path

import aiohttp
import pytest

from mhnos_runtime.cli.template import NAMES, read
from tests.kinds_real.conftest import CONFIG, WORKER, Arena, opened
from tests.server.client import connect

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]


PARTS = """
import { text } from "./more.js";
import data from "./data.json";
export default { fetch(_, env) { return Response.json({ text, data, env }); } };
"""
MORE = """
import { Buffer } from "node:buffer";
export const text = Buffer.from("6869", "hex").toString();
"""
EAT = "export default { fetch() { const all = []; for (;;) all.push(new Array(1e5).fill(1.5)); } }"


TEMPLATES = {name: read(name) for name in NAMES}


def config(port: int = 0, module: str = "hello.js") -> str:
    return CONFIG.replace("PORT", str(port)).replace("MODULE", module)


async def test_a_script_alone_is_served(arena: Arena) -> None:
    pid = await arena.client.spawn("workerd", "hello.js")
    # Reachable before it has said anything: the socket listened before workerd was there.
    (port,) = (await arena.record(pid))["ports"]
    assert (port["name"], port["url"]) == ("http", f"http://127.0.0.1:{port['port']}")
    assert await arena.get(f"{port['url']}/a") == "hello from /a"
    assert (await arena.settled(pid))["ready"] == {"state": "ready"}
    states = [m["state"] for m in arena.client.seen if m["type"] == "ready" and m["pid"] == pid]
    # Where it is ready before the answer is sent, nobody has seen it start.
    assert states in (["starting", "ready"], ["ready"])
    assert (await arena.client.ask("kill", pid=pid))["type"] == "killed"
    ended = await arena.ended(pid)
    assert (ended["reason"], ended.get("failure")) == ("killed", None)


async def test_websockets(arena: Arena) -> None:
    url = await arena.url(await arena.client.spawn("workerd", "/hello.js"))
    async with arena.http.ws_connect(f"{url}/socket") as connection:
        for text in ("one", "two", "ü" * 10_000):
            await connection.send_str(text)
            assert await connection.receive_str(timeout=20) == f"echo {text}"


async def test_a_config_with_a_socket_that_is_handed_over(arena: Arena) -> None:
    """Also in a sandbox without network, since the socket was made outside."""
    arena.write("configs/app.capnp", config(module="../hello.js"))
    pid = await arena.client.spawn("workerd", "/configs/app.capnp", ports={"http": 0})
    assert await arena.get(f"{await arena.url(pid)}/x") == "hello from /x"


async def test_an_asked_port_is_had_and_a_used_one_is_refused(arena: Arena) -> None:
    arena.write("asked.capnp", config())
    with socket.create_server(("127.0.0.1", 0)) as used:
        number = used.getsockname()[1]
        answer = await arena.client.ask(
            "spawn", processType="workerd", command="asked.capnp", ports={"http": number}
        )
        assert (answer["type"], answer["code"]) == ("error", "port-in-use"), answer
        assert str(number) in answer["error"]
    pid = await arena.client.spawn("workerd", "asked.capnp", ports={"http": number})
    assert await arena.url(pid) == f"http://127.0.0.1:{number}"


@pytest.mark.parametrize("command", ["plain.capnp", "/plain.capnp"])
async def test_what_clients_of_protocol_1_0_send(arena: Arena, command: str) -> None:
    """`workerd <config>`: it listens where the config says, and tells where that is."""
    arena.write("plain.capnp", config())
    async with connect(arena.server) as old:
        pid = await old.spawn("workerd", command, options={"cwd": "/"})
        row = await arena.settled(pid)
        while len(row["ports"]) < 2:
            row = await arena.record(pid)
        assert sorted(port["name"] for port in row["ports"]) == ["admin", "http"]
        addresses = {port["address"] for port in row["ports"]}
        assert addresses == {"127.0.0.1" if arena.outside else None}
        if arena.outside:
            assert await arena.get(f"{row['ports'][0]['url']}/1.0") == "hello from /1.0"
        await old.ask("kill", pid=pid)
        assert {m["type"] for m in old.seen} <= {"connected", "spawned", "exit", "killed", "stdout", "stderr"}


async def test_options_of_a_script(arena: Arena) -> None:
    arena.write("parts/main.mjs", PARTS)
    arena.write("parts/more.js", MORE)
    arena.write("parts/data.json", '{"of": "a module"}')
    odd = 'quotes " and \\ and \n and ü and \x7f'
    worker = {
        "bindings": {"TEXT": odd, "JSON": {"list": [1, odd]}},
        "environment": ["FROM_ENV"],
        "modules": ["more.js", "data.json"],
        "compatibilityFlags": ["nodejs_compat"],
        "heapMb": 64,
    }
    pid = await arena.client.spawn(
        "workerd", "main.mjs", worker=worker, options={"cwd": "/parts", "env": {"FROM_ENV": "v"}}
    )
    url = await arena.url(pid)
    async with arena.http.get(url) as response:
        told = await response.json()
    assert told == {
        "text": "hi",
        "data": {"of": "a module"},
        "env": {"TEXT": odd, "JSON": {"list": [1, odd]}, "FROM_ENV": "v"},
    }


async def test_the_heap_limit_holds(arena: Arena) -> None:
    arena.write("eat.js", EAT)
    pid = await arena.client.spawn("workerd", "eat.js", worker={"heapMb": 32})
    url = await arena.url(pid)
    with pytest.raises(aiohttp.ClientError):
        await arena.get(url)
    ended = await arena.ended(pid)
    assert "heap out of memory" in arena.client.output(pid)
    # It served: that is a crash, and no fault of the config.
    assert (ended["reason"], ended.get("failure")) in (("exit", None), ("signal", None))


async def test_a_config_is_printed_and_kept(arena: Arena) -> None:
    shown = await arena.client.ask("workerConfig", command="hello.js", worker={"bindings": {"A": "b"}})
    assert shown["type"] == "workerConfigText", shown
    assert 'embed "' in shown["config"]
    assert ("allow = []" in shown["config"]) is not arena.outside
    name = f"kept/{time.monotonic_ns()}.capnp"
    pid = await arena.client.spawn("workerd", "hello.js", worker={"keep": f"/{name}"})
    assert await arena.get(f"{await arena.url(pid)}/k") == "hello from /k"
    assert 'embed "../hello.js"' in (arena.server.workspace / name).read_text()
    again = await arena.client.ask(
        "spawn", processType="workerd", command="hello.js", worker={"keep": f"/{name}"}
    )
    assert again["type"] == "error"
    assert "there already" in again["error"]
    pid = await arena.client.spawn("workerd", f"/{name}", ports={"http": 0})
    assert await arena.get(f"{await arena.url(pid)}/2") == "hello from /2"


async def test_it_reaches_out_only_where_the_policy_lets_it(arena: Arena) -> None:
    """Not to this machine: neither where it has no network, nor, by workerd's own rule, where it has one."""
    target = f"{arena.server.url}/health"
    url = await arena.url(await arena.client.spawn("workerd", "hello.js"))
    async with arena.http.get(f"{url}/fetch", params={"url": target}) as response:
        assert await response.text() == "refused"


@pytest.mark.parametrize("name", NAMES)
async def test_the_templates_serve(arena: Arena, name: str) -> None:
    arena.write(f"templates/{name}.capnp", TEMPLATES[name])
    arena.write("templates/worker.js", WORKER)
    pid = await arena.client.spawn("workerd", f"templates/{name}.capnp", ports={"http": 0})
    url = await arena.url(pid)
    assert await arena.get(f"{url}/t") == "hello from /t"
    assert await arena.get(f"{url}/env") == ("{}" if name == "default" else '{"GREETING":"hello"}')


async def test_it_is_started_again_when_the_script_changes(arena: Arena) -> None:
    arena.write("watched.js", 'export default { fetch() { return new Response("first"); } };')
    pid = await arena.client.spawn("workerd", "watched.js", "--watch")
    url = await arena.url(pid)
    assert await arena.get(url) == "first"
    arena.write("watched.js", 'export default { fetch() { return new Response("second"); } };')
    deadline = time.monotonic() + 30
    while (text := await arena.get(url)) != "second":
        assert time.monotonic() < deadline, text
    assert (await arena.record(pid))["status"] == "running"


@pytest.mark.parametrize(
    ("command", "text", "said"),
    [
        ("/bad/invalid.capnp", "nonsense (", "bad/invalid.capnp:1:11: Parse error."),
        ("bad/module.capnp", config(module="missing.js"), "Couldn't read file for embed: missing.js"),
        ("/bad/service.capnp", config().replace('service = "main"', 'service = "x"'), "no such service"),
    ],
)
async def test_a_wrong_config_is_told_apart_from_a_crash(
    arena: Arena, command: str, text: str, said: str
) -> None:
    """As workerd printed it, with the file's name as the client knows it."""
    arena.write(command.strip("/"), text)
    arena.write("bad/hello.js", WORKER)
    pid = await arena.client.spawn("workerd", command)
    ended = await arena.ended(pid)
    row = await arena.record(pid)
    assert (ended["code"], ended["reason"], ended["failure"]) == (1, "exit", "config")
    assert row["exit"]["failure"] == "config"
    assert row["ready"] == {"state": "failed", "reason": "it ended before it was ready"}
    assert said in arena.client.output(pid)


async def test_a_script_that_imports_what_is_missing(arena: Arena) -> None:
    arena.write("lost.js", 'import { x } from "./nowhere.js";\nexport default {};')
    pid = await arena.client.spawn("workerd", "lost.js")
    assert (await arena.ended(pid))["failure"] == "config"
    assert "nowhere.js" in arena.client.output(pid)
    answer = await arena.client.ask(
        "spawn", processType="workerd", command="lost.js", worker={"modules": ["nowhere.js"]}
    )
    assert (answer["type"], answer["code"]) == ("error", "not-found")


async def test_a_port_of_a_config_that_is_in_use(arena: Arena) -> None:
    """In a network of its own no port is."""
    with socket.create_server(("127.0.0.1", 0)) as used:
        arena.write("used.capnp", config(used.getsockname()[1]))
        pid = await arena.client.spawn("workerd", "used.capnp")
        if not arena.outside:
            assert (await arena.settled(pid))["ready"] == {"state": "ready"}
            return
        assert (await arena.ended(pid))["failure"] == "config"
    assert "Address already in use" in arena.client.output(pid)


async def test_configs_outside_of_the_workspace(arena: Arena) -> None:
    outside = arena.server.workspace.parent / "outside.capnp"
    outside.write_text(config())
    link = arena.server.workspace / "link.capnp"
    if not link.is_symlink():
        link.symlink_to(outside)
    for command, code in (
        ("link.capnp", "outside-workspace"),
        ("../outside.capnp", "outside-workspace"),
        (str(outside), "not-found"),
        ("nowhere.capnp", "not-found"),
        ("nowhere.js", "not-found"),
    ):
        answer = await arena.client.ask("spawn", processType="workerd", command=command)
        assert (answer["type"], answer.get("code")) == ("error", code), (command, answer)


async def test_a_worker_that_spins_is_ended_all_the_same(arena: Arena) -> None:
    pid = await arena.client.spawn("workerd", "hello.js")
    url = await arena.url(pid)
    spinning = asyncio.create_task(arena.get(f"{url}/spin"))
    await _burning((await arena.record(pid))["osPid"])
    await arena.client.ask("kill", pid=pid)
    ended = await arena.ended(pid)
    assert (ended["signal"], ended["reason"]) == ("SIGKILL", "killed")
    with pytest.raises(aiohttp.ClientError):
        await spinning


async def test_no_engine(arena: Arena, folder: Path) -> None:
    async with opened(folder, folder / "no-engines", arena.level, arena.network) as bare:
        bare.write("hello.js", WORKER)
        answer = await bare.client.ask("spawn", processType="workerd", command="hello.js")
        assert (answer["type"], answer["code"]) == ("error", "engine-missing"), answer
        assert "mhnos-runtime engines install workerd" in answer["hint"]


@pytest.mark.skipif(os.geteuid() != 0, reason="processes run as whoever runs this, and enter what they can")
async def test_an_engine_that_processes_cannot_enter(arena: Arena, folder: Path) -> None:
    """It is said so; and everything else starts, although its folder cannot be shown in a sandbox."""
    engine = folder / "closed" / "engines" / "workerd" / "1"
    (engine / "bin").mkdir(parents=True)
    program = engine / "bin" / "workerd"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    marker = {
        "name": "workerd",
        "version": "1",
        "machine": platform.machine(),
        "program": "bin/workerd",
        "programBytes": program.stat().st_size,
        "sizeBytes": 1,
        "installedAt": 1.0,
    }
    (engine / "engine.json").write_text(json.dumps(marker))
    (folder / "closed").chmod(0o700)
    async with opened(folder, folder / "closed" / "engines", arena.level, arena.network) as own:
        own.write("hello.js", WORKER)
        pid = await own.client.run("echo here")
        assert (await own.ended(pid))["code"] == 0
        answer = await own.client.ask("spawn", processType="workerd", command="hello.js")
        assert (answer["type"], answer["code"]) == ("error", "not-executable"), answer
        assert "cannot enter" in answer["error"]


async def test_the_next_server_goes_on(arena: Arena, folder: Path, engines: Path) -> None:
    """What was found out before a server was killed is known to the next, and what was not is found out."""
    async with opened(folder, engines, arena.level, arena.network) as own:
        own.write("hello.js", WORKER)
        own.write("plain.capnp", config())
        known = await own.client.spawn("workerd", "hello.js")
        url = await own.url(known)
        first = own.server.server_pid()
        fresh = await own.client.spawn("workerd", "plain.capnp")
        os.kill(first, signal.SIGKILL)
        async with connect(own.server, newer=True) as client:
            own.client = client
            assert await own.url(known) == url
            assert await own.get(f"{url}/after") == "hello from /after"
            row = await own.settled(fresh)
            assert row["ready"] == {"state": "ready"}
            assert row["ports"]


async def _burning(os_pid: int) -> None:
    """Until the process has used CPU time for itself."""

    def used() -> int:
        fields = Path(f"/proc/{os_pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11])

    start = used()
    async with asyncio.timeout(30):
        while used() < start + 20:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.02)
