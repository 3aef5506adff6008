"""Uploads whose requests are cut anywhere, whose clients are half-open, and who come several at a time."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from mhnos_runtime.testing import TestServer
from tests.server.client import eventually
from tests.server.tus import OCTETS, Tus, read

pytestmark = pytest.mark.asyncio(loop_scope="module")

SMALL = bytes(range(50))
MIB = 1 << 20


@pytest_asyncio.fixture(loop_scope="module")
async def tus(server: TestServer) -> Tus:
    return Tus(server)


@pytest.fixture(autouse=True)
def nothing_partial(server: TestServer) -> Iterator[None]:
    """After each test nothing unfinished lies in the workspace that no record tells of."""
    yield
    partial = {path.name for path in server.workspace.rglob(".mhnos-push-*")}
    told = "".join(path.read_text() for path in (server.state_dir / "uploads").glob("*.json"))
    assert [name for name in partial if name not in told] == []


def content(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.mark.timeout(240)
async def test_a_patch_cut_at_each_byte(server: TestServer, tus: Tus) -> None:
    """By an orderly end and by a reset, in turn; then the rest, from where the server says."""
    made = await tus.create(len(SMALL), path="/first")
    whole = len(tus.patch(made.where, 0, SMALL))

    async def cut_at(number: int) -> None:
        path = f"/cut/{number}"
        where = (await tus.create(len(SMALL), path=path)).where
        data = tus.patch(where, 0, SMALL)[:number]
        await (tus.cut(data) if number % 2 else tus.abort(data))
        answer = await tus.resume(where, SMALL)
        assert answer.status == 204, (number, answer)
        assert (server.workspace / path[1:]).read_bytes() == SMALL

    for first in range(0, whole + 1, 8):
        await asyncio.gather(*(cut_at(number) for number in range(first, min(first + 8, whole + 1))))
    assert len(os.listdir(server.workspace / "cut")) == whole + 1


@pytest.mark.timeout(240)
async def test_a_creation_with_data_cut_at_each_byte(server: TestServer, tus: Tus) -> None:
    """The client does not know of an upload whose creation was not answered; it begins again."""
    request = tus.creation(len(SMALL), SMALL, path="/made")
    for number in range(len(request)):
        await (tus.cut if number % 2 else tus.abort)(request[:number])

    async def is_taken() -> bool:
        """Not before requests of those who have left are through: so many transfers are too many."""
        return (await tus.send(request)).status == 201

    await eventually(is_taken)
    assert (server.workspace / "made").read_bytes() == SMALL
    # Those whose head had come have begun, and are known.
    records = (server.state_dir / "uploads").glob("*.json")
    assert sum('"/made"' in path.read_text() for path in records) <= len(SMALL) + 1


@pytest.mark.parametrize("method", ["HEAD", "DELETE"])
async def test_questions_and_ends_cut_at_each_byte(server: TestServer, tus: Tus, method: str) -> None:
    where = (await tus.create(len(SMALL), SMALL[:9], path=f"/asked-{method}")).where
    request = tus.request(method, where)
    for number in range(len(request)):
        await (tus.cut if number % 2 else tus.abort)(request[:number])
        assert (await tus.head(where)).offset == 9
    assert (await tus.send(request)).status in (200, 204)


async def test_large_requests_cut_at_random(server: TestServer, tus: Tus) -> None:
    data = content(8 * MIB)
    where = (await tus.create(len(data), path="/large")).where
    dice, offset, cuts = random.Random(7), 0, 0
    while offset < len(data):
        request = tus.patch(where, offset, data[offset:])
        end = dice.randrange(2 * MIB)
        if len(request) <= end:
            break
        await (tus.cut if cuts % 2 else tus.abort)(request[:end])
        cuts += 1
        now = (await tus.head(where)).offset
        assert now >= offset
        offset = now
    assert cuts > 3
    assert (await tus.resume(where, data)).status == 204
    assert (server.workspace / "large").read_bytes() == data


async def half_open(tus: Tus, where: str, offset: int, data: bytes, most: int) -> asyncio.StreamWriter:
    """A client that has sent so much of a request, and neither goes on nor ends."""
    reader, writer = await asyncio.open_connection(tus.host, tus.port)
    del reader
    writer.write(tus.patch(where, offset, data)[: -len(data)] + data[:most])
    await writer.drain()
    return writer


async def reached(tus: Tus, where: str, offset: int) -> None:
    async def is_there() -> bool:
        return (await tus.head(where)).offset >= offset

    await eventually(is_there)


async def test_who_comes_back_takes_over_from_a_half_open_connection(server: TestServer, tus: Tus) -> None:
    data = content(MIB)
    where = (await tus.create(len(data), path="/half-open")).where
    old = await half_open(tus, where, 0, data, 300_000)
    await reached(tus, where, 131_072)
    assert (await tus.resume(where, data)).status == 204
    assert (server.workspace / "half-open").read_bytes() == data
    old.close()


async def test_another_offset_disturbs_nobody(server: TestServer, tus: Tus) -> None:
    data = content(MIB)
    where = (await tus.create(len(data), path="/undisturbed")).where
    reader, writer = await asyncio.open_connection(tus.host, tus.port)
    request = tus.patch(where, 0, data)
    writer.write(request[:-1000])
    await reached(tus, where, len(data) - 70_000)
    assert (await tus.go_on(where, 5, data[5:])).status == 409
    assert (await tus.go_on(where, len(data), b"")).status == 409
    writer.write(request[-1000:])
    assert (await read(reader)).status == 204
    writer.close()
    assert (server.workspace / "undisturbed").read_bytes() == data


async def test_what_the_old_connection_still_sends_is_not_written(server: TestServer, tus: Tus) -> None:
    """A proxy may bring the rest of a request whose client has long begun anew elsewhere."""
    data = content(MIB)
    where = (await tus.create(len(data), path="/late")).where
    old = await half_open(tus, where, 0, data, 200_000)
    await reached(tus, where, 65_536)
    offset = (await tus.head(where)).offset
    new_reader, new = await asyncio.open_connection(tus.host, tus.port)
    request = tus.patch(where, offset, data[offset:])
    new.write(request[:-100_000])
    await reached(tus, where, len(data) - 200_000)
    old.write(b"\0" * 400_000)
    new.write(request[-100_000:])
    answer = await read(new_reader)
    assert (answer.status, answer.offset) == (204, len(data))
    assert (server.workspace / "late").read_bytes() == data
    for writer in (old, new):
        writer.close()


async def test_many_at_the_same_offset(server: TestServer, tus: Tus) -> None:
    """One of them is the last to take over; nothing is written twice."""
    data = content(2 * MIB)
    where = (await tus.create(len(data), path="/crowd")).where
    results = await asyncio.gather(*(tus.go_on(where, 0, data) for _ in range(12)), return_exceptions=True)
    assert {each.status for each in results if not isinstance(each, BaseException)} <= {204, 409}
    answer = await tus.resume(where, data)
    assert (answer.status, answer.offset) == (204, len(data))
    assert hashlib.sha256((server.workspace / "crowd").read_bytes()).digest() == hashlib.sha256(data).digest()


async def test_ended_while_it_is_written(server: TestServer, tus: Tus) -> None:
    data = content(MIB)
    where = (await tus.create(len(data), path="/ended/f")).where
    old = await half_open(tus, where, 0, data, 300_000)
    await reached(tus, where, 65_536)
    assert (await tus.delete(where)).status == 204
    assert os.listdir(server.workspace / "ended") == []
    assert (await tus.head(where)).status == 404
    old.close()


def partial_of(server: TestServer, folder: str) -> Path:
    (found,) = (server.workspace / folder).glob(".mhnos-push-*")
    return found


@pytest.mark.parametrize("swap", ["link", "fifo", "file", "folder", "gone"])
async def test_a_process_puts_something_else_in_its_place(server: TestServer, tus: Tus, swap: str) -> None:
    secret = server.workspace.parent / "secret"
    secret.write_bytes(b"kept")
    where = (await tus.create(len(SMALL), SMALL[:9], path=f"/swap-{swap}/f")).where
    partial = partial_of(server, f"swap-{swap}")
    aside = partial.rename(partial.with_name("aside"))
    if swap == "link":
        partial.symlink_to(secret)
    elif swap == "fifo":
        os.mkfifo(partial)
    elif swap == "file":
        partial.write_bytes(SMALL[:9])
    elif swap == "folder":
        partial.mkdir()
    for answer in (await tus.head(where), await tus.go_on(where, 9, SMALL[9:])):
        assert answer.status == 410
    assert (await tus.delete(where)).status == 204
    assert secret.read_bytes() == b"kept"
    assert not (server.workspace / f"swap-{swap}/f").exists()
    assert aside.read_bytes() == SMALL[:9]
    if os.path.lexists(partial):
        partial.rmdir() if swap == "folder" else partial.unlink()


async def test_a_process_adds_to_it_or_cuts_it(server: TestServer, tus: Tus) -> None:
    where = (await tus.create(len(SMALL), SMALL[:9], path="/spoilt/f")).where
    with partial_of(server, "spoilt").open("r+b") as file:
        file.truncate(4)
    # What is there is what counts.
    assert (await tus.go_on(where, 9, SMALL[9:])).status == 409
    with partial_of(server, "spoilt").open("ab") as file:
        file.write(b"x" * 100)
    assert (await tus.head(where)).status == 410
    assert (await tus.delete(where)).status == 204


async def test_its_folder_moved_and_moved_back(server: TestServer, tus: Tus) -> None:
    where = (await tus.create(len(SMALL), SMALL[:9], path="/moved/f")).where
    (server.workspace / "moved").rename(server.workspace / "elsewhere")
    assert (await tus.head(where)).status == 410
    (server.workspace / "elsewhere").rename(server.workspace / "moved")
    assert (await tus.go_on(where, 9, SMALL[9:])).status == 204
    assert (server.workspace / "moved/f").read_bytes() == SMALL


async def test_the_folder_raced_for_a_link_that_leads_out(server: TestServer, tus: Tus) -> None:
    outside = server.workspace.parent / "outside"
    outside.mkdir()
    folder, aside = server.workspace / "raced", server.workspace / "raced-aside"
    folder.mkdir()
    stop = asyncio.Event()

    def swap() -> None:
        while not stop.is_set():
            # The server makes a folder that is missing, too.
            with contextlib.suppress(OSError):
                folder.rename(aside)
                folder.symlink_to("../outside")
                folder.unlink()
            with contextlib.suppress(OSError):
                aside.rename(folder)
            with contextlib.suppress(OSError):
                folder.unlink()
            shutil.rmtree(aside, ignore_errors=True)

    swapping = asyncio.create_task(asyncio.to_thread(swap))
    try:
        for number in range(60):
            made = await tus.create(len(SMALL), path=f"/raced/{number}")
            if made.status == 201:
                answer = await tus.go_on(made.where, 0, SMALL)
                assert answer.status in (204, 403, 404, 410, 503), answer
                await tus.delete(made.where)
    finally:
        stop.set()
        await swapping
    assert os.listdir(outside) == []
    # A draft whose folder was away when it was to be removed is in the folder of the process that did that.
    for path in (folder, aside):
        shutil.rmtree(path, ignore_errors=True)


async def test_chunked(server: TestServer, tus: Tus) -> None:
    where = (await tus.create(len(SMALL), path="/chunked")).where
    headers = {"Content-Type": OCTETS, "Upload-Offset": "0", "Transfer-Encoding": "chunked"}
    head = tus.request("PATCH", where, {**headers, "Content-Length": None})
    body = b"".join(b"1\r\n" + SMALL[at : at + 1] + b"\r\n" for at in range(len(SMALL)))
    await tus.cut(head + body)  # without the chunk that ends it
    assert (await tus.resume(where, SMALL)).status == 204
    assert (server.workspace / "chunked").read_bytes() == SMALL
