"""Who has no right token holds nobody else up: connections that are opened and left, slow ones, bodies that
do not come or do not end, in numbers. Times are compared with nothing but generous bounds."""

from __future__ import annotations

import asyncio
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import TypeVar

import aiohttp
import pytest
import pytest_asyncio

from mhnos_runtime.server.http.door import (
    MAX_NEWCOMERS,
    MAX_STRANGERS,
    MAX_STRANGERS_OF_AN_ADDRESS,
    REQUEST_SECONDS,
)
from mhnos_runtime.testing import TestServer
from tests.hostile.crowd import WAYS, Crowd, half_a_handshake, memory_bytes, silent, sockets
from tests.project.checkout import ROOT
from tests.server.certificate import make_certificate
from tests.server.client import Client, connect
from tests.server.conftest import server_in
from tests.server.raw import raw

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE = 30.0
T = TypeVar("T")
TEN = [f"127.0.1.{number}" for number in range(1, 11)]
#: Sockets that a server has by itself, and some that are just being closed.
FEW = 24


@pytest_asyncio.fixture(loop_scope="module")
async def server(tmp_path: Path) -> AsyncIterator[TestServer]:
    async with server_in(tmp_path) as running:
        yield running


async def healthy(server: TestServer, times: int, tls: ssl.SSLContext | None = None) -> int:
    """How many of so many questions were answered, each on a connection of its own."""
    answered = 0
    for _ in range(times):
        timeout = aiohttp.ClientTimeout(total=PATIENCE)
        url = f"{server.url}/health"
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(url, ssl=tls or True) as got,
        ):
            answered += got.status == 200
    return answered


async def eventually(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not check():  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.05)


async def echo(client: Client, pid: int, number: int) -> None:
    start = len(client.seen)
    await client.type(pid, b"%d;" % number)
    await client.text(pid, f"{number};", start)


class Crowds:
    """One of each address."""

    def __init__(self, server: TestServer, addresses: list[str]) -> None:
        self._crowds = [Crowd(server.url, address) for address in addresses]

    async def __aenter__(self) -> list[Crowd]:
        return self._crowds

    async def __aexit__(self, *_: object) -> None:
        for crowd in self._crowds:
            await crowd.__aexit__()


@asynccontextmanager
async def thousand(server: TestServer, sources: str) -> AsyncIterator[None]:
    """As many strangers, in a process of their own. All have been there; who is dropped comes again."""
    command = (sys.executable, "-m", "tests.hostile.crowd", server.url, sources, "1000")
    crowd = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    try:
        assert crowd.stdout is not None
        assert await asyncio.wait_for(crowd.stdout.readline(), PATIENCE) == b"here\n"
        yield
    finally:
        crowd.kill()
        await crowd.communicate()


@dataclass
class Took:
    """Milliseconds of each."""

    health: list[float] = field(default_factory=list)
    echo: list[float] = field(default_factory=list)
    start: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        return ", ".join(
            f"{name} {quantiles(values, n=100)[49]:.1f} (99 %: {quantiles(values, n=100)[98]:.1f})"
            for name, values in vars(self).items()
        )


async def tried(server: TestServer) -> Took:
    """Each of what has to work all the same, many times; on an idle machine some seconds."""
    took = Took()
    async with connect(server, newer=True) as client:
        pid = await client.run("exec cat")
        for number in range(200):
            assert await timed(took.health, healthy(server, 1)) == 1
            await timed(took.echo, echo(client, pid, number))
        for _ in range(20):
            await timed(took.start, client.run("exit 0"))
    return took


async def timed(into: list[float], doing: Awaitable[T]) -> T:
    start = time.perf_counter()
    done = await doing
    into.append((time.perf_counter() - start) * 1000)
    return done


@pytest.mark.timeout(170)
@pytest.mark.parametrize("sources", ["127.0.0.1", "127.0.2.1,127.0.2.2,127.0.2.3,127.0.2.4"])
async def test_a_thousand_connections_of_strangers_leave_health_starts_and_echoes(
    server: TestServer, sources: str
) -> None:
    """After a thousand connections nothing could be opened any more. From the address of everybody else, and
    from others; the figures are printed, for docs/performance.md."""
    print(f"alone: {await tried(server)} ms")
    before = memory_bytes(server)
    async with connect(server) as there, thousand(server, sources):
        print(f"beside a thousand: {await tried(server)} ms")
        await there.quiet()
        assert sockets(server) <= MAX_NEWCOMERS + FEW
        assert memory_bytes(server) - before < 64 << 20
    await eventually(lambda: sockets(server) <= FEW)
    assert await healthy(server, 1) == 1


@pytest.mark.timeout(120)
async def test_each_way_to_hold_a_connection_ends(server: TestServer) -> None:
    """Without anybody else who needs the place."""
    async with Crowd(server.url) as crowd:
        for way in WAYS:
            crowd.add(way)
        # Twice: who has its request answered on the last moment may be as long about the next one.
        took = await crowd.all_dropped(2 * REQUEST_SECONDS + PATIENCE)
        assert took >= REQUEST_SECONDS / 2, "who has done nothing for so short a time is only slow"


async def test_one_address_has_half_of_the_places(server: TestServer) -> None:
    async with Crowd(server.url) as crowd, Crowd(server.url, "127.0.0.2") as others:
        others.add(silent)
        crowd.add(silent, 100)
        await eventually(lambda: crowd.dropped >= 100 - MAX_STRANGERS_OF_AN_ADDRESS)
        assert (crowd.dropped, others.dropped) == (100 - MAX_STRANGERS_OF_AN_ADDRESS, 0)


async def test_all_addresses_together_have_so_many_places(server: TestServer) -> None:
    """And the address with the most has to give way."""
    async with Crowd(server.url, "127.0.0.3") as one, Crowds(server, TEN) as many:
        one.add(silent)
        await eventually(lambda: one.connected == 1)
        for crowd in many:
            crowd.add(silent, 10)
        await eventually(lambda: sum(crowd.dropped for crowd in many) >= 101 - MAX_STRANGERS)
        assert sum(crowd.dropped for crowd in many) == 101 - MAX_STRANGERS
        assert one.dropped == 0
        assert await healthy(server, 5) == 5


async def test_who_has_shown_the_token_is_no_stranger(server: TestServer) -> None:
    """More WebSockets than there are places, and none of them gives way."""
    async with asyncio.TaskGroup() as group:
        gate = asyncio.Barrier(MAX_STRANGERS + 10)

        async def stay() -> None:
            async with raw(server) as client:
                await gate.wait()
                await client.works()

        for _ in range(MAX_STRANGERS + 10):
            group.create_task(stay())


async def test_a_request_that_is_larger_than_any(server: TestServer) -> None:
    """A head of many lines, each of which is allowed."""
    host = server.url.partition("://")[2]
    _, writer = await asyncio.open_connection(*host.split(":"))
    writer.write(f"GET /health HTTP/1.1\r\nHost: {host}\r\n".encode())
    sent = 0
    try:
        while sent < 64 << 20:
            line = b"X-%d: " % sent + b"x" * 8000 + b"\r\n"
            writer.write(line)
            sent += len(line)
            await writer.drain()
    except ConnectionError:
        pass
    else:
        pytest.fail("64 MiB of headers were read")
    finally:
        writer.transport.abort()
    assert await healthy(server, 1) == 1


@pytest.mark.timeout(120)
async def test_half_a_handshake_of_tls(tmp_path: Path) -> None:
    """Neither silence nor half a handshake keeps a place for ever, and who speaks TLS is let in meanwhile."""
    cert, key = make_certificate(tmp_path)
    flags = ("--tls-cert", cert, "--tls-key", key)
    async with server_in(tmp_path, *flags) as server, Crowd(server.url) as crowd:
        crowd.add(silent, 20)
        crowd.add(half_a_handshake, 60)
        await eventually(lambda: crowd.connected == 80)
        assert await healthy(server, 5, ssl.create_default_context(cafile=cert)) == 5
        await crowd.all_dropped(REQUEST_SECONDS + PATIENCE)
        await eventually(lambda: sockets(server) <= FEW)
