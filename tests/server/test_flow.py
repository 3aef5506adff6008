"""Flow control: who is waited for, for how long, at what cost. Floods are checked byte for byte."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mhnos_runtime.testing import TestServer
from tests.server.client import OUTPUT, Client, Message, connect, eventually
from tests.server.conftest import server_in

KIB, MIB = 1 << 10, 1 << 20
#: More than all socket buffers on the way hold.
FLOOD = 16 * MIB
SOURCE = f"""
import hashlib, os, sys
block = hashlib.shake_128(b"flood").digest({MIB})
for _ in range(int(sys.argv[1]) // {MIB}):
    data = block
    while data: data = data[os.write(1, data):]
"""


@asynccontextmanager
async def flooding(directory: Path, stall_seconds: float, *flags: str) -> AsyncIterator[TestServer]:
    """A server that keeps little and waits for so long, with a program that floods."""
    stall = ("--stall-seconds", str(stall_seconds), "--retention-bytes", "64k")
    async with server_in(directory, *stall, *flags) as server:
        (server.workspace / "flood.py").write_text(SOURCE)
        yield server


async def flood(client: Client, size: int = FLOOD, attach: bool = True) -> int:
    return await client.spawn("python", "/flood.py", str(size), attach=attach)


def content(first: int, end: int) -> bytes:
    block = hashlib.shake_128(b"flood").digest(MIB)
    return (block * ((end - first) // MIB + 2))[first % MIB :][: end - first]


def check(messages: list[Message], pid: int, start: int) -> list[tuple[int, int]]:
    """Check offsets and bytes from `start` on; return the gaps."""
    gaps = []
    for message in messages:
        if message.get("pid") != pid:
            continue
        if message["type"] in OUTPUT:
            assert message["offset"] == start
            assert message["data"] == content(start, message["next"])
            start = message["next"]
        elif message["type"] == "gap":
            assert message["from"] == start
            gaps.append((start, message["to"]))
            start = message["to"]
    return gaps


def narrow(client: Client) -> None:
    """Take little into this side's buffers, so that the other side notices early that nobody reads."""
    connection = client.socket.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * KIB)


async def written(client: Client, pid: int) -> int:
    rows = (await client.ask("list", all=True))["processes"]
    return int(next(row["nextOffset"] for row in rows if row["pid"] == pid))


async def all_written(client: Client, pid: int) -> None:
    async def done() -> bool:
        return await written(client, pid) == FLOOD

    await eventually(done)


async def gone(os_pid: int) -> bool:
    return not Path(f"/proc/{os_pid}").exists()


async def standing_still(client: Client, pid: int) -> int:
    """Wait until the process has written nothing for ten looks in a row; return how much it has written."""
    looks = [-1]
    while len(looks) < 10 or len(set(looks[-10:])) > 1:
        looks.append(await written(client, pid))
        await asyncio.sleep(0.02)
    return looks[-1]


def memory(os_pid: int) -> int:
    """Bytes of the process's own memory: without what it maps from logs."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{os_pid}/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * KIB


async def test_a_process_waits_for_a_viewer_that_stops_reading(tmp_path: Path) -> None:
    """And nothing is lost. In the first server the flood went into its memory, 470 MB of it."""
    async with (
        flooding(tmp_path, 60) as server,
        connect(server, newer=True) as client,
        connect(server) as other,
    ):
        narrow(client)
        before = memory(server.server_pid())
        pid = await flood(client)
        assert 0 < await standing_still(other, pid) < FLOOD
        assert memory(server.server_pid()) - before < 8 * MIB
        await client.exit(pid)
        assert check(client.seen, pid, 0) == []
        assert client.seen[-2]["next"] == FLOOD


async def test_a_stalled_viewer_is_told_the_gap_and_moved_on(tmp_path: Path) -> None:
    async with (
        flooding(tmp_path, 0.1) as server,
        connect(server, newer=True) as client,
        connect(server) as other,
    ):
        narrow(client)
        pid = await flood(client)
        await all_written(other, pid)
        await client.exit(pid)
        gaps = check(client.seen, pid, 0)
        assert gaps
        assert all(to > from_ for from_, to in gaps)
        assert [m["next"] for m in client.seen if m["type"] in OUTPUT][-1] == FLOOD


async def test_a_process_that_nobody_watches_never_waits(tmp_path: Path) -> None:
    async with flooding(tmp_path, 60) as server, connect(server, newer=True) as client:
        pid = await flood(client, attach=False)
        await all_written(client, pid)
        answer = await client.ask("attach", pid=pid)
        assert answer["next"] == FLOOD


async def test_a_client_that_acknowledges_is_waited_for(tmp_path: Path) -> None:
    """It has received everything and used nothing: what it has not used is kept for it."""
    async with (
        flooding(tmp_path, 60) as server,
        connect(server, newer=True) as client,
        connect(server) as other,
    ):
        # It writes nothing before there is somebody to wait for.
        pid = await client.spawn("python", "-c", "input(); exec(open('flood.py').read())", str(FLOOD))
        await client.send("ack", pid=pid, offset=0)
        await client.quiet()
        await client.send("write", pid=pid, data="\r")
        reader = asyncio.create_task(client.exit(pid))
        head = await standing_still(other, pid)
        kept = (await other.ask("list"))["processes"][0]
        received = [m["next"] for m in client.seen if m["type"] in OUTPUT]
        assert received[-1] == head
        assert kept["firstOffset"] <= received[-1] - 32 * KIB
        while not reader.done():
            received = [m["next"] for m in client.seen if m["type"] in OUTPUT]
            await client.send("ack", pid=pid, offset=received[-1])
            await asyncio.wait([reader], timeout=0.01)
        assert check(client.seen, pid, 0) == []


async def test_what_is_not_acknowledged_can_be_had_again(tmp_path: Path) -> None:
    async with (
        flooding(tmp_path, 60) as server,
        connect(server, newer=True) as client,
        connect(server) as other,
    ):
        pid = await client.spawn("python", "-c", "input(); exec(open('flood.py').read())", str(FLOOD))
        await client.send("ack", pid=pid, offset=0)
        await client.send("write", pid=pid, data="\r")
        reader = asyncio.create_task(client.exit(pid))
        limit = await standing_still(other, pid)
        kept = client.hello["limits"]["retentionBytes"]
        assert kept <= limit <= kept + 64 * KIB
        reader.cancel()
        await asyncio.wait([reader])
        assert check(client.seen, pid, 0) == []
        client.seen.clear()
        answer = await client.ask("attach", pid=pid, **{"from": 0})
        assert (answer["from"], answer["next"]) == (0, limit)
        assert check(client.seen, pid, 0) == []
        await client.ask("kill", pid=pid)


@pytest.mark.parametrize("acknowledges", [True, False])
async def test_a_vanished_client_comes_back_in_a_flood(tmp_path: Path, acknowledges: bool) -> None:
    """Over and over, and not a byte is lost or comes twice if it acknowledges what it has used.

    Without that, it holds nothing that was sent, and what was lost on the way is told as a gap; nobody
    waits for the hold that it had, however often it comes back.
    """
    offset = 0
    came: list[Message] = []
    async with flooding(tmp_path, 60) as server:
        async with connect(server, newer=True) as client:
            pid = await client.spawn("python", "-c", "input(); exec(open('flood.py').read())", str(FLOOD))
            await client.send("attach", pid=pid, acks=acknowledges)
            await client.send("write", pid=pid, data="\r")
            await client.until("stdout")
            client.vanish()
        for number in range(100):
            async with connect(server, newer=True) as client:
                await client.send("attach", pid=pid, acks=acknowledges, **{"from": offset})
                offset = await _some(client, pid, offset, MIB + number * 1000, acknowledges)
                client.vanish()
                came += client.seen
            if came[-1]["type"] == "exit":
                break
    gaps = check(came, pid, 0)
    assert offset == FLOOD
    assert gaps == [] or not acknowledges


async def _some(client: Client, pid: int, offset: int, size: int, acknowledges: bool) -> int:
    """Read so many bytes, or to the exit; return the offset after what came."""
    stop = offset + size
    while offset < stop:
        message = await client.next()
        if message["type"] == "exit":
            break
        if message["type"] in (*OUTPUT, "gap"):
            offset = message.get("next") or message["to"]
            if acknowledges:
                await client.send("ack", pid=pid, offset=offset)
    return offset


async def test_the_hold_of_a_vanished_client_lapses(tmp_path: Path) -> None:
    async with flooding(tmp_path, 0.2) as server, connect(server) as other:
        async with connect(server, newer=True) as client:
            pid = await flood(client)
            client.vanish()
        await all_written(other, pid)


@pytest.mark.parametrize("goodbye", ["close", "detach"])
async def test_a_clean_goodbye_lets_go_at_once(tmp_path: Path, goodbye: str) -> None:
    async with flooding(tmp_path, 60) as server, connect(server) as other:
        async with connect(server, newer=True) as client:
            pid = await client.spawn("python", "-c", "input(); exec(open('flood.py').read())", str(FLOOD))
            await client.send("ack", pid=pid, offset=0)
            await client.send("write", pid=pid, data="\r")
            reader = asyncio.create_task(client.exit(pid))
            await standing_still(other, pid)
            reader.cancel()
            await asyncio.wait([reader])
            if goodbye == "detach":
                await client.ask("detach", pid=pid)
                await all_written(other, pid)
        await all_written(other, pid)


async def test_a_quick_viewer_is_not_harmed_by_a_slow_one(tmp_path: Path) -> None:
    """It waits for it for the stall time, and loses nothing; only the slow one is told of gaps."""
    async with flooding(tmp_path, 1) as server, connect(server, newer=True) as slow:
        narrow(slow)
        async with connect(server, newer=True) as quick:
            pid = await quick.spawn("python", "-c", "input(); exec(open('flood.py').read())", str(FLOOD))
            await slow.ask("attach", pid=pid)
            await quick.send("write", pid=pid, data="\r")
            await quick.exit(pid)
            assert check(quick.seen, pid, 0) == []
        await slow.exit(pid)
        assert check(slow.seen, pid, 0) != []


async def test_ctrl_c_from_another_client_ends_a_flood_that_nobody_reads(tmp_path: Path) -> None:
    async with flooding(tmp_path, 60) as server, connect(server) as client, connect(server) as other:
        narrow(client)
        before = memory(server.server_pid())
        pid = await client.spawn("shell", "exec yes 0123456789")
        await standing_still(other, pid)
        assert memory(server.server_pid()) - before < 8 * MIB
        os_pid = (await other.ask("list"))["processes"][0]["osPid"]
        assert Path(f"/proc/{os_pid}/comm").read_text() == "yes\n"
        await other.send("write", pid=pid, data="\x03")
        await eventually(lambda: gone(os_pid))
        assert (await client.exit(pid))["signal"] == "SIGINT"


async def test_answers_that_are_not_read_are_bounded(tmp_path: Path) -> None:
    """Above a mark the server reads no more of this client's requests, and nobody else notices."""
    async with flooding(tmp_path, 60) as server, connect(server) as client, connect(server) as other:
        narrow(client)
        for _ in range(4):
            await client.run("read x", args=["x" * 5000], attach=False)
        before = memory(server.server_pid())
        sent = 0

        async def ask_and_not_read() -> None:
            nonlocal sent
            while True:
                await client.send("list", ignored="x" * 5000)
                sent += 1

        asking = asyncio.create_task(ask_and_not_read())
        looks = [-1]
        while len(looks) < 10 or looks[-10] != looks[-1]:
            looks.append(sent)
            await asyncio.sleep(0.02)
        assert memory(server.server_pid()) - before < 8 * MIB
        assert (await other.ask("ping"))["type"] == "pong"
        asking.cancel()
        await asyncio.wait([asking])
        for _ in range(sent):
            assert (await client.next())["type"] == "processList"
