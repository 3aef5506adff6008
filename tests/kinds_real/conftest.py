"""The real engines, and a server at each level that the host offers."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from mhnos_runtime.sandbox.facts import HostFacts
from mhnos_runtime.sandbox.probe import probe
from mhnos_runtime.testing import TestServer
from tests.engines.shared import shared_store
from tests.sandbox.conftest import place, require
from tests.server.client import Client, Message, connect

#: Each level with the networks that make a difference to whom a process can be reached by.
ARENAS = (("strict", "host"), ("strict", "none"), ("relaxed", "host"), ("none", "host"))
ENGINES = ("node", "workerd", "openclaw")
#: seconds; OpenClaw's first start takes 15 s of CPU time, on a machine that others use as well
PATIENCE = 150.0

WORKER = """
export default {
  async fetch(request, env) {
    const url = new URL(request.url);
    if (request.headers.get("Upgrade") === "websocket") {
      const [client, server] = Object.values(new WebSocketPair());
      server.accept();
      server.addEventListener("message", event => server.send("echo " + event.data));
      return new Response(null, { status: 101, webSocket: client });
    }
    if (url.pathname === "/spin") { while (true) {} }
    if (url.pathname === "/env") return Response.json(env);
    if (url.pathname === "/fetch") {
      try { return new Response("reached " + (await fetch(url.searchParams.get("url"))).status); }
      catch (error) { return new Response("refused"); }
    }
    return new Response("hello from " + url.pathname);
  },
};
"""
CONFIG = """
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = .worker)],
  sockets = [
    (name = "http", address = "127.0.0.1:PORT", http = (), service = "main"),
    (name = "admin", address = "127.0.0.1:0", http = (), service = "main"),
  ],
);
const worker :Workerd.Worker = (
  modules = [(name = "hello.js", esModule = embed "MODULE")],
  compatibilityDate = "2026-11-17",
);
"""


@pytest.fixture(scope="session")
def engines() -> Path:
    """The folder of the real engines, which tests must not change."""
    return shared_store(*ENGINES).folder


@pytest.fixture(scope="session")
def facts() -> HostFacts:
    return probe(None)


@pytest.fixture
def folder() -> Iterator[Path]:
    made = place()
    yield made
    shutil.rmtree(made, ignore_errors=True)


@dataclass
class Arena:
    """A server, a client of protocol 1.1, and a session for HTTP to what processes serve."""

    server: TestServer
    client: Client
    http: aiohttp.ClientSession
    level: str
    network: str

    @property
    def outside(self) -> bool:
        return self.network == "host"

    def write(self, name: str, text: str) -> None:
        path = self.server.workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    async def record(self, pid: int) -> Message:
        rows = (await self.client.ask("list", all=True))["processes"]
        return dict(next(row for row in rows if row["pid"] == pid))

    async def settled(self, pid: int, patience: float = 30.0) -> Message:
        """The record once it is known whether the process serves."""
        async with asyncio.timeout(patience):
            while (row := await self.record(pid))["ready"]["state"] == "starting":  # noqa: ASYNC110
                # Whoever is not attached is not told.
                await asyncio.sleep(0.02)
        return row

    async def url(self, pid: int, name: str = "http") -> str:
        row = await self.settled(pid)
        assert row["ready"] == {"state": "ready"}, (row, self.client.output(pid))
        port = next(port for port in row["ports"] if port["name"] == name)
        return f"http://{port['address']}:{port['port']}"

    async def get(self, url: str) -> str:
        async with self.http.get(url, timeout=aiohttp.ClientTimeout(total=20)) as response:
            return await response.text()

    async def ended(self, pid: int) -> Message:
        """The exit message, whether it has come already or is to come."""
        come = [m for m in self.client.seen if m["type"] == "exit" and m["pid"] == pid]
        return come[0] if come else await self.client.exit(pid)


Open = Callable[..., Awaitable[Arena]]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ARENAS, ids="-".join)
async def arena(request: pytest.FixtureRequest, facts: HostFacts, engines: Path) -> AsyncIterator[Arena]:
    """One server for the tests of a module at one level with one network."""
    level, network = request.param
    require(facts, level)
    folder = place()
    flags = ("--kill-grace-seconds", "1", "--max-processes", "200", "--max-memory", "2g")
    try:
        async with opened(folder, engines, level, network, *flags) as arena:
            arena.write("hello.js", WORKER)
            yield arena
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class opened:  # noqa: N801 - used like a function
    """`async with` gives an arena on a server of its own."""

    def __init__(
        self, folder: Path, engines: Path, level: str, network: str, *flags: str, **environment: str
    ) -> None:
        variables = {"MHNOS_ENGINES_DIR": str(engines), "MHNOS_ALLOW_OPENCLAW": "true", **environment}
        own = ("--sandbox", level, "--network", network, *flags)
        self._server = TestServer(folder / "server", *own, environment=variables)
        self._level, self._network = level, network

    async def __aenter__(self) -> Arena:
        server = await self._server.__aenter__()
        self._connection: Any = connect(server, newer=True)
        client = await self._connection.__aenter__()
        self._http = aiohttp.ClientSession()
        return Arena(server, client, self._http, self._level, self._network)

    async def __aexit__(self, *error: Any) -> None:
        await self._http.close()
        await self._connection.__aexit__(*error)
        await self._server.__aexit__(*error)
