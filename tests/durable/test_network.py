"""A network that cuts, stalls, delays, splits and reorders; three kinds of clients; one that is late."""

from __future__ import annotations

import asyncio
import hashlib
import random
from pathlib import Path

import aiohttp
import pytest

from mhnos_runtime.client import Gap, Output
from mhnos_runtime.testing import TestServer
from tests.durable.proxy import Proxy
from tests.durable.scene import (
    BLOCK_BYTES,
    PATIENCE_S,
    Assembler,
    client_of,
    eventually,
    expected_sha,
    kill_server,
    server_in,
    spawn_writer,
    timed,
    write_script,
)
from tests.server.client import OUTPUT, Client, Closed, Message
from tests.server.client import connect as connect_raw

# Text, with characters of one to four bytes, for a given time; leaves the SHA-256 of all in a file.
TALKER = """
import hashlib, os, random, sys, time
os.read(0, 1)
seed, end = sys.argv[1], time.monotonic() + float(sys.argv[2])
dice, total, number = random.Random(seed), hashlib.sha256(), 0
while time.monotonic() < end:
    lines = (f"{number + n} z\\u00e4h \\u20ac \\U0001f600\\n" for n in range(dice.randrange(200)))
    data = "".join(lines).encode()
    number += 200
    total.update(data)
    while data: data = data[os.write(1, data[: dice.randrange(1, 20000)]):]
    time.sleep(dice.random() * 0.02)
with open("talked", "w") as file: file.write(total.hexdigest())
"""


class RawFollower:
    """A client without a library: text or binary, comes back whenever its connection ends."""

    def __init__(self, server: TestServer, url: str, pid: int, newer: bool) -> None:
        self.server = server
        self.url = url
        self.pid = pid
        self.newer = newer
        self.next = 0
        self.sha = hashlib.sha256()
        self.connections = 0
        self.attached = False
        self.exit: Message | None = None

    async def run(self) -> str:
        while self.exit is None:
            try:
                async with connect_raw(self.server, newer=self.newer, base=self.url) as client:
                    self.connections += 1
                    await client.send("attach", pid=self.pid, acks=True, **{"from": self.next})
                    await self._follow(client)
            except (Closed, OSError, aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(0.01)
        return self.sha.hexdigest()

    async def _follow(self, client: Client) -> None:
        while self.exit is None:
            message = await client.next()
            client.seen.clear()
            assert message["type"] not in ("gap", "error"), message
            self.attached |= message["type"] == "attached"
            if message["type"] in OUTPUT:
                self._take(message)
                await client.send("ack", pid=self.pid, offset=self.next)
            elif message["type"] == "exit":
                self.exit = message

    def _take(self, message: Message) -> None:
        """Binary frames follow each other exactly; between text frames a cut character may be carried."""
        assert message["offset"] == self.next or (not self.newer and 0 < message["offset"] - self.next < 4)
        self.next = message["next"]
        self.sha.update(message["data"] if self.newer else message["data"].encode())


@pytest.mark.timeout(200)
async def test_three_clients_over_a_network_that_fails(
    tmp_path: Path, dice: random.Random, long: bool
) -> None:
    seconds = 60.0 if long else 6.0
    async with (
        server_in(tmp_path, "--allow-host", "127.0.0.1") as server,
        Proxy(server.url, dice) as proxy,
        client_of(server) as near,
        client_of(server, url=proxy.url) as far,
    ):
        write_script(server, "talker.py", TALKER)
        talker = await near.spawn("python", "talker.py", args=[str(dice.random()), str(seconds)], pty=False)
        followers = [RawFollower(server, proxy.url, talker.pid, newer) for newer in (False, True)]
        assemblers = [Assembler(talker), Assembler(await far.attach(talker.pid, from_=0))]
        working = [asyncio.create_task(each.run()) for each in followers]
        working += [asyncio.create_task(each.run()) for each in assemblers]
        await eventually(lambda: all(each.attached for each in followers))
        await talker.write("x")
        async with timed(f"a network that fails for {seconds:.0f} s"):
            await eventually((server.workspace / "talked").exists, seconds + PATIENCE_S)
            proxy.calm = True
            shas = await asyncio.gather(*working)
        print(proxy.faults, "connections:", [each.connections for each in followers], assemblers[0].offset)
        assert set(shas) == {(server.workspace / "talked").read_text()}
        assert all(each.exit is not None and each.exit["code"] == 0 for each in followers)
        assert min(each.connections for each in followers) > seconds / 6


@pytest.mark.timeout(120)
async def test_input_and_starts_over_a_network_that_fails(
    tmp_path: Path, dice: random.Random, long: bool
) -> None:
    """Nothing dies but connections: then nothing is uncertain either."""
    count = 2000 if long else 200
    async with server_in(tmp_path, "--allow-host", "127.0.0.1") as server, Proxy(server.url, dice) as proxy:
        async with client_of(server, url=proxy.url) as runtime:
            process = await runtime.spawn("shell", "cat > typed", pty=False)
            others = []
            for number in range(count):
                process.write_nowait(f"{number}\n")
                if number % 40 == 0:
                    others.append(await runtime.spawn("shell", f"echo {number} >> started", pty=False))
                await asyncio.sleep(dice.random() * 0.03)
            await process.close_stdin()
            for each in (process, *others):
                assert (await each.wait()).code == 0
            assert process.uncertain_input == []
        typed = (server.workspace / "typed").read_text().split()
        assert typed == [str(number) for number in range(count)]
        assert (server.workspace / "started").read_text().split() == typed[::40]


@pytest.mark.timeout(200)
@pytest.mark.parametrize("late", [False, True], ids=["in time", "too late"])
async def test_a_client_that_stalls_and_returns(tmp_path: Path, long: bool, late: bool) -> None:
    """In time it loses nothing; too late it is told which bytes, and has all others. Nobody else waits for
    longer than the stall time, or loses anything."""
    stall_s = (10.0 if long else 1.0) if late else 20.0
    away_s = (60.0 if long else 3.0) if late else 1.0
    blocks = 128
    async with (
        server_in(tmp_path, "--stall-seconds", str(stall_s)) as server,
        client_of(server) as runtime,
        client_of(server) as other,
    ):
        process = await spawn_writer(other, server, "stall", blocks)
        stalled = await runtime.attach(process.pid, from_=0)
        assembling = asyncio.create_task(Assembler(process).run())
        output = stalled.output()
        await process.write("x")
        got, gaps = bytearray(), []
        first = await anext(output)
        assert isinstance(first, Output)
        got += first.data
        await asyncio.sleep(away_s)
        async for item in output:
            if isinstance(item, Gap):
                assert item.from_ == len(got)
                gaps.append((item.from_, item.to))
                got += bytes(item.to - item.from_)
            else:
                assert item.offset == len(got)
                got += item.data
        assert await assembling == expected_sha("stall", blocks)
        assert len(got) == blocks * BLOCK_BYTES
        whole = b"".join(hashlib.shake_128(f"stall.{n}".encode()).digest(BLOCK_BYTES) for n in range(blocks))
        for start, end in gaps:
            whole = whole[:start] + bytes(end - start) + whole[end:]
        assert hashlib.sha256(got).digest() == hashlib.sha256(whole).digest()
        assert bool(gaps) == late


async def test_a_connection_that_is_half_open_is_found_within_the_heartbeat(tmp_path: Path) -> None:
    """The network swallows everything and says nothing, as when a laptop sleeps."""
    async with (
        server_in(tmp_path, "--allow-host", "127.0.0.1") as server,
        Swallowing(server.url) as proxy,
        client_of(server, url=proxy.url, heartbeat_s=1.0) as runtime,
    ):
        process = await runtime.spawn("shell", "cat", pty=False)
        await process.write("one\n")
        assert await anext(process.output()) == Output("stdout", 0, b"one\n")
        proxy.swallow()
        await process.write("two\n")
        assert await anext(process.output()) == Output("stdout", 4, b"two\n")
        await process.close_stdin()
        assert (await process.wait()).code == 0


class Swallowing(Proxy):
    """Passes everything on until `swallow`; then nothing more of the connections of before, while new ones
    are as good as ever."""

    def __init__(self, target: str) -> None:
        super().__init__(target, random.Random(0))
        self.calm = True
        self._generation = 0

    def swallow(self) -> None:
        self._generation += 1

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine = self._generation
        while data := await reader.read(65536):
            if mine == self._generation:
                writer.write(data)
                await writer.drain()


async def test_a_kill_while_the_network_fails(tmp_path: Path, dice: random.Random) -> None:
    async with (
        server_in(tmp_path, "--allow-host", "127.0.0.1") as server,
        Proxy(server.url, dice) as proxy,
        client_of(server, url=proxy.url) as runtime,
    ):
        process = await spawn_writer(runtime, server, "both", 64)
        assembler = Assembler(process)
        assembling = asyncio.create_task(assembler.run())
        await process.write("x")
        await assembler.reached(10 * BLOCK_BYTES)
        await kill_server(server)
        await eventually(lambda: assembler.offset >= 30 * BLOCK_BYTES)
        proxy.calm = True
        assert await assembling == expected_sha("both", 64)
