"""Bodies of any size through a real door: who may send them, how they are slowed, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
from collections.abc import AsyncIterator, Callable
from functools import partial

import pytest
from aiohttp import web

from mhnos_runtime.errors import LimitReached
from mhnos_runtime.server.auth.grants import EVERYTHING, Access, Grant, Scope
from mhnos_runtime.server.auth.live import Live
from mhnos_runtime.server.http import door
from mhnos_runtime.server.http.call import PIECE_BYTES, Call
from mhnos_runtime.server.http.door import MAX_REQUEST_BYTES, Transfers, Visitor
from mhnos_runtime.server.http.routes import Row
from tests.server.http.site import Some, serve

PATIENCE = 20.0
FILES = Grant("token:files", frozenset({Scope.FILES}))
#: More than all buffers on the way hold together.
MUCH = 64 << 20


class Site:
    """An app on a port. pieces: sizes that handlers were given. ends: how transfers ended."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.address = ("", 0)
        self.pieces: list[int] = []
        self.ends: asyncio.Queue[str] = asyncio.Queue()
        self.visitors: list[Visitor] = []
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.writers: list[asyncio.StreamWriter] = []

    def rows(self) -> tuple[Row, ...]:
        return (
            Row("PUT", "/up", Scope.FILES, self._up),
            Row("PUT", "/open", Access.OPEN, self._up),
            Row("PUT", "/refuse", Scope.FILES, self._refuse),
            Row("GET", "/down", Scope.FILES, self._down),
        )

    async def _up(self, call: Call) -> web.Response:
        digest = hashlib.sha256()
        self.visitors.append(call.visitor)
        try:
            with call.transfer():
                await self.may_read.wait()
                async for piece in call.pieces():
                    self.pieces.append(len(piece))
                    digest.update(piece)
                await self.may_end.wait()
        except BaseException as error:
            self.ends.put_nowait(type(error).__name__)
            raise
        self.ends.put_nowait("")
        return web.Response(text=digest.hexdigest())

    async def _refuse(self, _call: Call) -> web.Response:
        return web.Response(status=409, text="no")

    async def _down(self, call: Call) -> web.StreamResponse:
        response = web.StreamResponse()
        try:
            with call.transfer():
                await response.prepare(call.request)
                while True:
                    await response.write(bytes(1 << 18))
        except BaseException as error:
            self.ends.put_nowait(type(error).__name__)
            raise

    async def ended(self) -> str:
        return await asyncio.wait_for(self.ends.get(), PATIENCE)

    def head(self, path: str, *more: str, token: str = "files", method: str = "PUT") -> bytes:
        lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.address[1]}", *more]
        lines += [f"Authorization: Bearer {token}"] if token else []
        return "\r\n".join([*lines, "", ""]).encode()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*self.address)
        self.writers.append(writer)
        return reader, writer


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    made = Site(Live(asyncio.get_running_loop()))
    async with serve(made.rows(), Some(EVERYTHING, FILES), made.live) as made.address:
        yield made
        for writer in made.writers:
            writer.transport.abort()


async def answer(reader: asyncio.StreamReader) -> tuple[int, str]:
    async with asyncio.timeout(PATIENCE):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(int(line[15:]) for line in head.split("\r\n") if line[:15] == "Content-Length:")
        return int(head.split()[1]), (await reader.readexactly(length)).decode()


async def ends(reader: asyncio.StreamReader) -> bytes:
    """What still comes up to the end of the connection."""
    with contextlib.suppress(ConnectionError):
        return await asyncio.wait_for(reader.read(), PATIENCE)
    return b""


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, MAX_REQUEST_BYTES * 5 + 1, 20 << 20])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_of_any_size_arrives(site: Site, size: int, chunked: bool) -> None:
    """A head with 64 KiB and more behind it in one read ended the connection."""
    reader, writer = await site.connect()
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    if chunked:
        parts = [body[start : start + 100_000] for start in range(0, size, 100_000)]
        sent = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        how = "Transfer-Encoding: chunked"
    else:
        sent, how = body, f"Content-Length: {size}"
    for _ in range(2):
        site.pieces.clear()
        writer.write(site.head("/up", how) + sent)
        assert await answer(reader) == (200, hashlib.sha256(body).hexdigest())
        assert sum(site.pieces) == size
        assert all(PIECE_BYTES <= piece <= 1 << 20 for piece in site.pieces[:-1])


async def test_a_stranger_sends_no_body(site: Site) -> None:
    """Neither where the row needs a grant nor where it is open, and nothing of it is kept."""
    for path, expected in (("/up", 401), ("/open", 403)):
        reader, writer = await site.connect()
        writer.write(site.head(path, f"Content-Length: {MUCH}", token="") + bytes(4 << 20))
        # The rest of the body may be answered by a reset, behind the answer.
        with contextlib.suppress(ConnectionError):
            assert (await answer(reader))[0] == expected
        await ends(reader)
    assert site.pieces == []


async def test_a_stranger_who_has_been_answered_is_not_waited_for(site: Site) -> None:
    """Who sends requests without end and reads no answers had each of them answered."""
    reader, writer = await site.connect()
    writer.write(site.head("/up", "Content-Length: 0", token=""))
    assert (await answer(reader))[0] == 401
    writer.write(site.head("/up", f"Content-Length: {MUCH}", token="") + bytes(4 << 20))
    assert await ends(reader) == b""
    assert site.visitors == []


async def test_requests_without_end_are_not_all_answered(site: Site) -> None:
    """One read of the socket had thousands of them, and each cost the loop a turn."""
    reader, writer = await site.connect()
    writer.write(site.head("/up", "Content-Length: 0", token="") * 20_000)
    assert (await ends(reader)).count(b"HTTP/1.1 401") < 1000


async def test_a_head_that_does_not_end_is_cut(site: Site) -> None:
    reader, writer = await site.connect()
    # Lines that are each short enough, in one read of the socket.
    writer.write(b"GET /up HTTP/1.1\r\n" + b"X-Long: " + b"x" * 4000 + b"\r\n")
    writer.write((b"X-Long: " + b"x" * 4000 + b"\r\n") * 40)
    assert await ends(reader) == b""


async def test_only_so_many_wait_for_their_answer(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "MAX_HELD", 0)
    reader, writer = await site.connect()
    writer.write(site.head("/up", f"Content-Length: {MUCH}") + bytes(4 << 20))
    assert await ends(reader) == b""


async def test_a_reader_that_is_slow_slows_the_sender(site: Site) -> None:
    site.may_read.clear()
    reader, writer = await site.connect()
    writer.write(site.head("/up", f"Content-Length: {MUCH}") + bytes(MUCH))
    await until(lambda: bool(site.visitors))
    async with asyncio.timeout(PATIENCE):
        while not await quiet(writer):
            pass
    # Two reads of the socket beyond what aiohttp wants to have at most.
    assert site.visitors[0]._bytes < 2 << 20
    site.may_read.set()
    assert (await answer(reader))[0] == 200
    assert sum(site.pieces) == MUCH


async def quiet(writer: asyncio.StreamWriter) -> bool:
    """Whether the kernel takes nothing more at the moment."""
    before = writer.transport.get_write_buffer_size()
    await asyncio.sleep(0.2)
    return writer.transport.get_write_buffer_size() == before


async def test_the_client_is_told_to_go_on_when_its_body_is_wanted(site: Site) -> None:
    """RFC 9110, 10.1.1: by a handler that reads it, not by one that refuses."""
    reader, writer = await site.connect()
    writer.write(site.head("/up", "Content-Length: 3", "Expect: 100-continue"))
    assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE) == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"abc")
    assert await answer(reader) == (200, hashlib.sha256(b"abc").hexdigest())
    writer.write(site.head("/refuse", "Content-Length: 3", "Expect: 100-continue"))
    assert await answer(reader) == (409, "no")
    assert await ends(reader) == b""


async def test_a_body_that_is_there_needs_no_going_on(site: Site) -> None:
    reader, writer = await site.connect()
    writer.write(site.head("/up", "Content-Length: 3", "Expect: 100-continue") + b"abc")
    assert await answer(reader) == (200, hashlib.sha256(b"abc").hexdigest())


async def test_who_sends_a_body_that_nobody_reads_sees_the_answer(site: Site) -> None:
    reader, writer = await site.connect()
    writer.write(site.head("/refuse", f"Content-Length: {8 << 20}") + bytes(8 << 20))
    await asyncio.wait_for(writer.drain(), PATIENCE)
    assert await answer(reader) == (409, "no")


async def test_single_bytes_are_gathered(site: Site) -> None:
    reader, writer = await site.connect()
    writer.write(site.head("/up", "Content-Length: 300"))
    for _ in range(300):
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0)
    assert await answer(reader) == (200, hashlib.sha256(b"x" * 300).hexdigest())
    assert site.pieces == [300]


async def test_small_reads_make_pieces_that_are_worth_a_turn(site: Site) -> None:
    reader, writer = await site.connect()
    writer.write(site.head("/up", f"Content-Length: {10 * 40_000}"))
    for number in range(1, 10):
        writer.write(bytes(40_000))
        await until(partial(came, site, number * 40_000))
    writer.write(bytes(40_000))
    assert (await answer(reader))[0] == 200
    assert sum(site.pieces) == 400_000
    assert all(piece >= PIECE_BYTES for piece in site.pieces)


def came(site: Site, size: int) -> bool:
    return bool(site.visitors) and site.visitors[0]._bytes > size


@pytest.mark.parametrize("size", [0, 100])
async def test_what_came_before_the_client_left_is_given_first(site: Site, size: int) -> None:
    _, writer = await site.connect()
    writer.write(site.head("/up", f"Content-Length: {MUCH}") + bytes(size))
    await writer.drain()
    await until(lambda: bool(site.visitors) and site.visitors[0]._broken is not None)
    writer.close()
    assert await site.ended() in ("ConnectionResetError", "ClientConnectionResetError")
    assert sum(site.pieces) == size


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not check():  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.01)


async def test_a_body_that_is_no_http_ends_its_transfer(site: Site) -> None:
    reader, writer = await site.connect()
    writer.write(site.head("/up", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n")
    await until(lambda: bool(site.visitors) and site.visitors[0]._broken is not None)
    writer.write(b"zz\r\nwhat\r\n")
    assert await site.ended() != ""
    await ends(reader)


async def test_a_body_that_is_encoded_is_refused(site: Site) -> None:
    reader, writer = await site.connect()
    writer.write(site.head("/up", "Content-Length: 3", "Content-Encoding: gzip") + b"abc")
    status, text = await answer(reader)
    assert (status, '"unsupported-encoding"' in text) == (415, True)


async def test_a_client_that_sends_nothing_more_is_cut(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "STALL_SECONDS", 0.1)
    reader, writer = await site.connect()
    writer.write(site.head("/up", f"Content-Length: {MUCH}") + bytes(10))
    assert await ends(reader) == b""
    assert "ConnectionResetError" in await site.ended()


async def test_a_client_that_takes_nothing_more_is_cut(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "STALL_SECONDS", 0.1)
    with socket.create_connection(site.address) as peer:
        peer.sendall(site.head("/down", method="GET"))
        assert "ConnectionResetError" in await site.ended()


async def test_a_server_that_is_busy_is_no_stall(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of gigabytes may take longer than a minute to reach the disk."""
    looks: list[object] = []
    look = Visitor._look_for_progress

    def counted(visitor: Visitor, before: tuple[int, int, int] | None) -> None:
        looks.append(before)
        look(visitor, before)

    monkeypatch.setattr(door, "STALL_SECONDS", 0.02)
    monkeypatch.setattr(Visitor, "_look_for_progress", counted)
    site.may_end.clear()
    reader, writer = await site.connect()
    writer.write(site.head("/up", "Content-Length: 3") + b"abc")
    await until(lambda: site.pieces == [3])
    looks.clear()
    await until(lambda: len(looks) > 3)  # a stall would have been found by the third
    site.may_end.set()
    assert (await answer(reader))[0] == 200


async def test_a_revocation_ends_a_transfer(site: Site) -> None:
    reader, writer = await site.connect()
    writer.write(site.head("/up", f"Content-Length: {MUCH}") + bytes(10))
    await until(lambda: bool(site.visitors) and site.visitors[0]._broken is not None)
    site.live.end(FILES.principal)
    assert await ends(reader) == b""
    assert await site.ended() == "CancelledError"


def test_transfers_are_bounded_in_all_and_for_each_principal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "MAX_TRANSFERS", 3)
    monkeypatch.setattr(door, "MAX_TRANSFERS_OF_ONE", 2)
    transfers = Transfers()
    with contextlib.ExitStack() as stack:
        for name in ("a", "a"):
            stack.enter_context(transfers.entered(name))
        with pytest.raises(LimitReached), transfers.entered("a"):
            pass
        with transfers.entered("b"), pytest.raises(LimitReached), transfers.entered("c"):
            pass
    with transfers.entered("a"):
        assert transfers._of == {"a": 1}
