"""workerd from a spawn to its first HTTP answer, and OpenClaw to its health, beside the bare programs."""

import asyncio
import http.client
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from mhnos_runtime import config, proc
from mhnos_runtime.client import Runtime, connect
from mhnos_runtime.engines import Engine, EngineStore
from mhnos_runtime.process import openclaw, workerd
from mhnos_runtime.testing import TestServer

from .context import OURS, Context
from .measure import median
from .peers.base import clean_environment
from .result import Figure

_WORKER = 'export default { fetch() { return new Response("hello"); } };'
_LEVELS = ("none", "strict")
#: What a first start leaves for the next ones, unpacked pages and compiled code, is not what is measured.
_WARM_UP = 1

#: ms until it serves; of OpenClaw also ms of CPU time that it has used by then.
Sample = tuple[float, ...]


def _answer(port: int, path: str = "/") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def _healthy(port: int) -> None:
    while _answer(port, "/readyz") != 200:
        time.sleep(0.05)


def _listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=128)


def _bare_workerd_ms(program: Path, folder: Path) -> Sample:
    (folder / "hello.js").write_text(_WORKER)
    (folder / "bare.capnp").write_text(workerd.config("hello.js", "", workerd.Options()))
    with _listener() as listener:
        start = time.perf_counter()
        command = [str(program), "serve", f"--socket-fd=http={listener.fileno()}", str(folder / "bare.capnp")]
        process = subprocess.Popen(command, pass_fds=[listener.fileno()], env=clean_environment())
        assert _answer(listener.getsockname()[1]) == 200
        duration = (time.perf_counter() - start) * 1000
    process.kill()
    process.wait()
    return (duration,)


async def _workerd_ms(runtime: Runtime) -> Sample:
    start = time.perf_counter()
    process = await runtime.spawn("workerd", "hello.js")
    while not process.ports:  # noqa: ASYNC110 - it is told at once
        await asyncio.sleep(0)
    status = await asyncio.to_thread(_answer, process.ports[0].port)
    duration = (time.perf_counter() - start) * 1000
    assert status == 200
    await process.kill()
    return (duration,)


def _bare_openclaw_ms(node: Path, script: Path, folder: Path) -> Sample:
    state = folder / openclaw.CONFIG.strip("/")
    if not state.exists():
        state.parent.mkdir()
        state.write_text(openclaw.config(str(folder)))
    with _listener() as found:
        port = found.getsockname()[1]
    flags = [item for item in openclaw.OPENCLAW.argv[3:] if "{" not in item]
    command = [str(node), "--max-old-space-size=2048", str(script), *flags, str(port)]
    environment = {**clean_environment(), "HOME": str(folder), "OPENCLAW_STATE_DIR": str(state.parent)}
    start = time.perf_counter()
    with open(os.devnull, "wb") as nothing:
        process = subprocess.Popen(
            command, env={**environment, openclaw.TOKEN: "bench"}, stdout=nothing, stderr=nothing
        )
    _healthy(port)
    duration = (time.perf_counter() - start) * 1000
    used = proc.usage(process.pid)
    assert used is not None
    process.terminate()
    process.wait()
    return duration, used.cpu_ms


async def _openclaw_ms(runtime: Runtime) -> Sample:
    start = time.perf_counter()
    process = await runtime.spawn("openclaw", "start")
    await process.until_serving()
    duration = (time.perf_counter() - start) * 1000
    (used,) = await runtime.stats(process.pid)
    assert used.cpu_ms is not None
    await process.kill()
    return duration, used.cpu_ms


async def _measure(kind: str, rounds: int, found: dict[str, Engine], root: Path) -> dict[str, list[Sample]]:
    samples: dict[str, list[Sample]] = defaultdict(list)
    bare = root / "bare"
    bare.mkdir(exist_ok=True)
    levels = ("bare", *_LEVELS)
    for number in range(rounds + _WARM_UP):
        # Each has each place in turn: what the one before leaves to be done is of no one's account.
        first = number % len(levels)
        for level in (*levels[first:], *levels[:first]):
            if level == "bare" and kind == "workerd":
                sample = await asyncio.to_thread(_bare_workerd_ms, found["workerd"].program, bare)
            elif level == "bare":
                programs = found["node"].program, found["openclaw"].program
                sample = await asyncio.to_thread(_bare_openclaw_ms, *programs, bare)
            else:
                sample = await _ours_ms(kind, level, root, found)
            if number >= _WARM_UP:
                samples["bare" if level == "bare" else f"{OURS}, {level}"].append(sample)
    return samples


async def _ours_ms(kind: str, level: str, root: Path, found: dict[str, Engine]) -> Sample:
    """One start on a server that has been there for a while: its spare sandbox is ready."""
    environment = {
        "MHNOS_ENGINES_DIR": str(found[kind].folder.parent.parent),
        "MHNOS_ALLOW_OPENCLAW": "true",
        "MHNOS_MAX_MEMORY": "2g",
    }
    async with TestServer(root / level, "--sandbox", level, environment=environment) as server:
        (server.workspace / "hello.js").write_text(_WORKER)
        async with connect(server.url, server.token) as runtime:
            await (await runtime.spawn("shell", "true", pty=False)).wait()
            await asyncio.sleep(0.2)
            return await (_workerd_ms if kind == "workerd" else _openclaw_ms)(runtime)


def _engines() -> dict[str, Engine]:
    store = EngineStore(config.load({})[0].engines_dir)
    found = {name: engine for name in ("node", "workerd", "openclaw") if (engine := store.find(name))}
    for name, needed in (("workerd", ("workerd",)), ("openclaw", ("node", "openclaw"))):
        if absent := [each for each in needed if each not in found]:
            print(
                f"benchmarks: {name} is left out: no engine {' or '.join(absent)} in {store.folder}. Set "
                f"MHNOS_ENGINES_DIR, or run: mhnos-runtime engines install {' '.join(absent)}",
                file=sys.stderr,
            )
    return found


def run(context: Context) -> list[Figure]:
    found = _engines()
    # Root's processes run as somebody who cannot enter its own folders.
    root = Path(tempfile.mkdtemp(prefix="bench-kinds-", dir="/var/lib" if os.geteuid() == 0 else None))
    root.chmod(0o755)
    figures = []
    try:
        if "workerd" in found:
            rows = asyncio.run(_measure("workerd", context.pick(20, 5), found, root))
            figure = Figure("workerd: spawn to first HTTP answer", "ms", _medians(rows))
            for level, limit in (("none", 60), ("strict", 100)):
                value = figure.values.get(f"{OURS}, {level}")
                figure.demand(f"{OURS}, {level}: median", value, "<", limit, "ms")
            figures.append(figure)
        if {"node", "openclaw"} <= found.keys():
            rows = asyncio.run(_measure("openclaw", context.pick(7, 3), found, root))
            # On a busy machine the time moves by seconds, what the program had to do does not.
            for which, name in enumerate(("spawn to ready", "CPU time up to ready")):
                figure = Figure(f"OpenClaw: {name}", "ms", _medians(rows, which))
                for level in _LEVELS:
                    above = figure.values[f"{OURS}, {level}"] - figure.values["bare"]
                    figure.demand(f"{OURS}, {level}: above the bare program", above, "<=", 500, "ms")
                figures.append(figure)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return figures


def _medians(samples: dict[str, list[Sample]], which: int = 0) -> dict[str, float]:
    return {name: median([sample[which] for sample in samples[name]]) for name in sorted(samples)}
