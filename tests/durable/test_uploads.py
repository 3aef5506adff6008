"""Uploads while servers are killed, disks fill and connections are cut: the same bytes arrive."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from mhnos_runtime.testing import TestServer
from tests.durable.scene import MIB, NO_PAUSES, eventually, kill_server, server_in
from tests.server.tus import OCTETS, Answer, Tus, read

CUTS = 10
_BLOCK = hashlib.shake_256(b"uploads").digest(MIB)


def block(number: int) -> bytes:
    """One MiB, another one for each number."""
    return number.to_bytes(8, "big") + _BLOCK[8:]


def sent_sha(blocks: int) -> str:
    digest = hashlib.sha256()
    for number in range(blocks):
        digest.update(block(number))
    return digest.hexdigest()


async def send(tus: Tus, where: str, blocks: int, offset: int, most: int) -> Answer | None:
    """A PATCH from `offset` on, that is reset after so many bytes; its answer where it came to its end."""
    head = tus.request(
        "PATCH",
        where,
        {
            "Content-Type": "application/offset+octet-stream",
            "Upload-Offset": str(offset),
            "Content-Length": str(blocks * MIB - offset),
        },
    )
    async with tus.connected() as (reader, writer):
        writer.write(head)
        at, end = offset, min(blocks * MIB, offset + most)
        while at < end:
            data = block(at // MIB)[at % MIB :][: end - at]
            writer.write(data)
            await writer.drain()
            at += len(data)
        if end == blocks * MIB:
            return await read(reader)
        writer.transport.abort()
    return None


async def sha_of_download(server: TestServer, path: str) -> str:
    def fetch() -> str:
        request = urllib.request.Request(
            f"{server.url}/v1/files{path}", headers={"Authorization": f"Bearer {server.token}"}
        )
        digest = hashlib.sha256()
        with urllib.request.urlopen(request) as answer:
            while data := answer.read(1 << 18):
                digest.update(data)
        return digest.hexdigest()

    return await asyncio.to_thread(fetch)


@pytest.mark.timeout(3600)
async def test_an_upload_that_is_cut_ten_times_comes_back_the_same(tmp_path: Path, long: bool) -> None:
    """With --long 5 GiB, which takes some minutes."""
    blocks = 5 << 10 if long else 50
    async with server_in(tmp_path) as server:
        tus, began = Tus(server), time.monotonic()
        where = (await tus.create(blocks * MIB, path="/large")).where
        offset, cuts, answer = 0, 0, None
        while answer is None:
            most = blocks * MIB // CUTS - MIB // 3 if cuts < CUTS else blocks * MIB
            with suppress(ConnectionError):
                answer = await send(tus, where, blocks, offset, most)
            if answer is None or answer.status == 409:
                # 409: what a connection that was cut had brought was still being written when it was asked.
                cuts, answer = cuts + (answer is None), None
                asked = await tus.head(where)
                assert asked.status == 200, asked
                assert asked.offset >= offset
                offset = asked.offset
        up = time.monotonic() - began
        assert (answer.status, answer.offset, cuts) == (204, blocks * MIB, CUTS)
        expected = await asyncio.to_thread(sent_sha, blocks)
        began = time.monotonic()
        assert await sha_of_download(server, "/large") == expected
        print(f"{blocks} MiB: {up:.1f} s up with {cuts} cuts, {time.monotonic() - began:.1f} s down")


@pytest.mark.timeout(300)
async def test_servers_killed_in_the_middle(tmp_path: Path, dice: random.Random) -> None:
    """SIGKILL at random moments, also of the last request; nothing but the file is left."""
    blocks, kills = 24, 0
    async with server_in(tmp_path, patched=NO_PAUSES) as server:
        tus = Tus(server)
        where = (await tus.create(blocks * MIB, path="/killed")).where
        while True:
            with suppress(ConnectionError, EOFError):
                asked = await tus.head(where)
                assert asked.status == 200, asked
                if "etag" in asked.headers:
                    break
                # The last kill comes when all is there, and is about to take its place.
                most = 2 * MIB if kills < 8 else blocks * MIB
                sending = asyncio.create_task(send(tus, where, blocks, asked.offset, most))
                if kills < 9:
                    moment = asked.offset + (dice.randrange(most - MIB // 2) if kills < 8 else most)
                    await arrived(server, min(moment, blocks * MIB))
                    await kill_server(server)
                    kills += 1
                await sending
        assert kills == 9
        assert await sha_of_download(server, "/killed") == sent_sha(blocks)
        assert [path.name for path in server.workspace.iterdir()] == ["killed"]


async def arrived(server: TestServer, size: int) -> None:
    """So much is in the unfinished file, or it is whole."""

    def is_there() -> bool:
        found = [path.stat().st_size for path in server.workspace.glob(".mhnos-push-*")]
        return not found or found[0] >= size

    await eventually(is_there)


async def test_a_server_killed_leaves_nothing_of_a_put(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server:
        tus = Tus(server)
        async with tus.connected() as (_, writer):
            writer.write(tus.request("PUT", "/v1/files/put", {"Content-Length": str(MIB)}) + bytes(MIB // 2))
            await eventually(lambda: any("(deleted)" in name for name in open_files(server)))
            await kill_server(server)
        assert list(server.workspace.iterdir()) == []


def open_files(server: TestServer) -> list[str]:
    found = list[str]()
    for link in Path(f"/proc/{server.server_pid()}/fd").iterdir():
        with suppress(OSError):
            found.append(os.readlink(link))
    return [name for name in found if name.startswith(str(server.workspace))]


@asynccontextmanager
async def small_disk(path: Path, size: str) -> AsyncIterator[None]:
    path.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def put(tus: Tus, path: str, data: bytes) -> bytes:
    return tus.request("PUT", f"/v1/files{path}", {"Content-Length": str(len(data))}, data)


def put_in_chunks(tus: Tus, target: str, data: bytes) -> bytes:
    """Without a length, so that nobody knows how much is coming."""
    headers = {"Content-Length": None, "Transfer-Encoding": "chunked"}
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)
    return tus.request("PUT", f"/v1/files{target}", headers, body)


@pytest.fixture(params=["0", "4 MiB"])
def min_free(request: pytest.FixtureRequest) -> str:
    """Filled to the last byte, or to what is to stay free."""
    return str(request.param)


async def test_a_full_workspace(tmp_path: Path, min_free: str) -> None:
    """Each way in says that the disk is full; what was there stays, and goes on once there is room."""
    async with (
        small_disk(tmp_path / "workspace", "16m"),
        server_in(tmp_path, "--min-free", min_free.replace(" ", "")) as server,
    ):
        tus = Tus(server)
        assert (await tus.send(put(tus, "/old", b"old"))).status == 201
        where = (await tus.create(3 * MIB, path="/up")).where
        assert (await tus.go_on(where, 0, block(0))).offset == MIB
        room = os.statvfs(server.workspace)
        spare = room.f_bavail * room.f_frsize - (4 * MIB if min_free != "0" else 0) - MIB // 2
        (server.workspace / "filler").write_bytes(bytes(spare))
        for answer in (
            await tus.create(3 * MIB, path="/more"),
            await tus.send(put(tus, "/old", bytes(2 * MIB))),
            await tus.send(put(tus, "/new", bytes(2 * MIB))),
            await tus.go_on(where, MIB, block(1) + block(2)),
        ):
            assert (answer.status, json.loads(answer.body)["code"]) == (507, "disk-full"), answer
        assert (server.workspace / "old").read_bytes() == b"old"
        left = {path.name for path in server.workspace.iterdir()}
        assert len(left) == 3
        assert left > {"old", "filler"}
        assert MIB <= (await tus.head(where)).offset < 3 * MIB
        (server.workspace / "filler").unlink()
        answer = await tus.resume(where, block(0) + block(1) + block(2))
        assert answer.status == 204
        assert (server.workspace / "up").read_bytes() == block(0) + block(1) + block(2)
        assert (await tus.send(put(tus, "/old", b"new"))).status == 200


async def test_a_workspace_that_fills_between_two_looks_at_its_space(tmp_path: Path) -> None:
    """The kernel says it then: a body whose length nobody knew found room when it began."""
    async with (
        small_disk(tmp_path / "workspace", "8m"),
        server_in(tmp_path, "--min-free", "0") as server,
    ):
        tus, data = Tus(server), bytes(6 * MIB)
        assert (await tus.send(put(tus, "/old", b"old"))).status == 201
        (server.workspace / "filler").write_bytes(bytes(5 * MIB))
        for target in ("/old", "/new", "/into?archive=zip"):
            answer = await tus.send(put_in_chunks(tus, target, data))
            assert (answer.status, json.loads(answer.body)["code"]) == (507, "disk-full"), answer
        where = (await tus.create(None, path="/up")).where
        answer = await tus.send(
            tus.request(
                "PATCH",
                where,
                {"Content-Type": OCTETS, "Upload-Offset": "0", "Upload-Length": str(len(data))},
                data,
            )
        )
        assert (answer.status, json.loads(answer.body)["code"]) == (507, "disk-full"), answer
        assert (await tus.delete(where)).status == 204
        assert (server.workspace / "old").read_bytes() == b"old"
        assert {path.name for path in server.workspace.iterdir()} == {"old", "filler", "into"}
        assert list((server.workspace / "into").iterdir()) == []
        assert "defect in a request" not in server.log.read_text()


async def test_a_full_state_directory(tmp_path: Path) -> None:
    """No new upload begins; those that have begun come to their end, and so does everything else."""
    async with small_disk(tmp_path / "state", "8m"), server_in(tmp_path) as server:
        tus = Tus(server)
        where = (await tus.create(2 * MIB, path="/up")).where
        with suppress(OSError):
            (server.state_dir / "filler").write_bytes(bytes(16 * MIB))
        refused = await tus.create(5, path="/refused")
        assert (refused.status, json.loads(refused.body)["code"]) == (507, "disk-full")
        assert (await tus.send(put(tus, "/put", b"fine"))).status == 201
        answer = await tus.go_on(where, 0, block(0) + block(1))
        assert answer.status == 204
        assert sorted(path.name for path in server.workspace.iterdir()) == ["put", "up"]
        await kill_server(server)
        assert (await tus.resume(where, block(0) + block(1))).headers["etag"] == answer.headers["etag"]
        (server.state_dir / "filler").unlink()
        assert (await tus.create(0, path="/again")).status == 201
