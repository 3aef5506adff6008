"""Whatever bytes a stranger sends, the server stays as it is: it answers, writes a bounded log without
tracebacks, takes bounded memory, and harms nobody who is there. Random bytes, and damaged requests."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import json
import random
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from mhnos_runtime.observe.limit import LINES_A_MINUTE
from mhnos_runtime.testing import TestServer
from tests.hostile.crowd import memory_bytes
from tests.server.client import Client
from tests.server.client import connect as client_of
from tests.server.conftest import server_in
from tests.server.raw import connect, frame, upgrade

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE = 20.0
#: Lines of the runtime's own that a test's clients cause: start, connections that come and go.
OWN_LINES = 40


@pytest_asyncio.fixture(loop_scope="module")
async def server(tmp_path: Path) -> AsyncIterator[TestServer]:
    async with server_in(tmp_path) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TestServer]:
    async with server_in(tmp_path_factory.mktemp("server")) as running:
        yield running


def lines(server: TestServer) -> list[str]:
    return server.log.read_text().splitlines()


async def say(
    server: TestServer, data: bytes, dice: random.Random | None = None, half_close: bool = True
) -> bytes:
    """Send it, in pieces when there are dice, and what comes back before the end; or before nothing comes.

    Who half-closes may be taken for one who has left before the answer is made.
    """
    reader, writer = await connect(server)
    came = b""
    try:
        at = 0
        while at < len(data):
            size = dice.choice((1, 7, 100, len(data))) if dice else len(data)
            writer.write(data[at : at + size])
            at += size
            await asyncio.sleep(0)
        if half_close and writer.can_write_eof():
            writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            came = await reader.read(1 << 20)
    except OSError:
        pass
    finally:
        writer.transport.abort()
    return came


async def healthy(server: TestServer) -> None:
    host = server.url.partition("://")[2]
    request = f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    answer = await say(server, request.encode(), half_close=False)
    assert answer.startswith(b"HTTP/1.1 200 "), answer


def most_in_a_minute(log: list[str]) -> int:
    """Of the lines of a log: a long run, or a busy machine, takes more than one minute."""
    times = [datetime.fromisoformat(json.loads(line)["ts"]) for line in log]
    return max(
        bisect.bisect_left(times, start + timedelta(minutes=1)) - number for number, start in enumerate(times)
    )


def quiet(server: TestServer) -> None:
    """The log has no more than it may, and none of it is a traceback."""
    log = lines(server)
    assert most_in_a_minute(log) <= LINES_A_MINUTE + OWN_LINES
    assert not [line for line in log if "Traceback" in line or "exception" in line]
    assert not [line for line in log if len(line) > 4000]


BAD_HEADS = {
    "NUL in a value": b"GET / HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
    "NUL in a name": b"GET / HTTP/1.1\r\nHost: x\r\nX\0: a\r\n\r\n",
    "NUL in the target": b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "no HTTP": b"NONSENSE\r\n\r\n",
    "another version": b"GET / HTTP/9.9\r\n\r\n",
    "a long line": b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
    "a long value": b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
    "two lengths": b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "a negative length": b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    "length and chunks": b"GET / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a chunk of no number": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nx\r\n",
    "a chunk of 2^64": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    "an odd coding": b"POST / HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
    "a folded line": b"GET / HTTP/1.1\r\nHost: x\r\n y\r\n\r\n",
    "line feeds only": b"GET / HTTP/1.1\nHost: x\n\n",
    "a record of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(100),
    "CONNECT": b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n",
    "OPTIONS *": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "an absolute target": b"GET http://example.com/health HTTP/1.1\r\nHost: example.com\r\n\r\n",
    "an odd target": b"GET http://[::1/health HTTP/1.1\r\nHost: x\r\n\r\n",
    "a port of no number": b"GET http://x:99999999/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "bytes that are no text": b"GET /\xff\xfe HTTP/1.1\r\nHost: \xff\r\nX: \xf0\x9f\r\n\r\n",
    "half of an escape": b"GET /%f?%=%&%zz=%00 HTTP/1.1\r\nHost: x\r\n\r\n",
    "an odd Expect": b"GET / HTTP/1.1\r\nHost: x\r\nExpect: something\r\n\r\n",
    "Expect, and nothing": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    "garbage behind an upgrade": b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    + bytes(100),
}


async def test_bad_requests_make_few_lines_however_often_they_come(server: TestServer) -> None:
    """A NUL in a header wrote 15 KB of traceback, each time."""
    for _ in range(5):
        await asyncio.gather(*(say(server, head) for head in BAD_HEADS.values()))
    quiet(server)
    await healthy(server)


@pytest.mark.parametrize("head", BAD_HEADS.values(), ids=BAD_HEADS.keys())
async def test_a_bad_request_is_answered_or_dropped(shared: TestServer, head: bytes) -> None:
    status = (await say(shared, head)).split(b" ")[1:2]
    assert not status or 400 <= int(status[0]) < 500
    await healthy(shared)


async def test_what_was_left_out_is_counted(server: TestServer) -> None:
    """On lines of the same kind, so that who reads the log sees that there was more."""
    for _ in range(6):
        await asyncio.gather(*(say(server, BAD_HEADS["NUL in a value"]) for _ in range(20)))
    reported = [json.loads(line) for line in lines(server)]
    assert sum(line["msg"] == "bad request" for line in reported) == LINES_A_MINUTE
    assert not any(line.get("unreported") for line in reported), "the minute has not passed"
    bad = next(line for line in reported if "reason" in line)
    assert (bad["msg"], bad["level"]) == ("bad request", "warning")
    assert bad["address"] == "127.0.0.1"


async def test_nobody_but_health_is_answered_with_continue(server: TestServer) -> None:
    """100 Continue was sent before the gate had looked."""
    host = server.url.partition("://")[2]
    head = f"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n"
    answer = await say(server, f"{head}Connection: close\r\n\r\n".encode(), half_close=False)
    assert answer.startswith(b"HTTP/1.1 401 "), answer


# Fuzzing


def requests(server: TestServer, dice: random.Random) -> bytes:
    """A request that is nearly right."""
    host = server.url.partition("://")[2].encode()
    name = dice.choice((b"GET", b"POST", b"HEAD", b"CONNECT", b"PRI", b"OPTIONS"))
    target = dice.choice((b"/", b"/health", b"*", b"/?token=x", b"http://x/", b"//", b"/%00", b"?"))
    version = dice.choice((b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"http/1.1"))
    headers = [b"Host: " + host, *(dice.choice(HEADERS) for _ in range(dice.randrange(6)))]
    return b" ".join((name, target, version)) + b"\r\n" + b"\r\n".join((*headers, b"", b""))


HEADERS = (
    b"Connection: Upgrade",
    b"Connection: keep-alive, close",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    b"Sec-WebSocket-Protocol: mhnos.v1.1, mhnos.token.x",
    b"Authorization: Bearer x",
    b"Authorization: Basic eDp4",
    b"Origin: null",
    b"Origin: https://[::1]:99999",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Content-Length: 5",
    b"Content-Encoding: br",
    b"Expect: 100-continue",
    b"X-Forwarded-For: 1.2.3.4",
    b"Cookie: " + b"x" * 4000,
)
BODIES = (b"", b"5\r\nhello\r\n0\r\n\r\n", b"hello", b"fffffff\r\n" + bytes(1000), bytes(200))


def of_requests(server: TestServer, dice: random.Random) -> bytes:
    return b"".join(requests(server, dice) + dice.choice(BODIES) for _ in range(dice.randrange(1, 5)))


def of_handshakes(server: TestServer, dice: random.Random) -> bytes:
    """With a token that is wrong by a letter, and frames behind it."""
    head = upgrade(server, Authorization=f"Bearer {server.token[:-1]}")
    return head + b"".join(frame(dice.randrange(16), dice.randbytes(dice.randrange(200))) for _ in range(3))


def of_random_bytes(_server: TestServer, dice: random.Random) -> bytes:
    return dice.randbytes(dice.choice((1, 10, 100, 5000)))


def of_tls(_server: TestServer, dice: random.Random) -> bytes:
    body = dice.randbytes(dice.randrange(600))
    return b"\x16\x03" + bytes([dice.randrange(5)]) + len(body).to_bytes(2) + body


def damaged(data: bytes, dice: random.Random) -> bytes:
    """With bytes changed, left out, doubled or put in at some places."""
    found = bytearray(data)
    for _ in range(dice.choice((0, 1, 1, 3, 20))):
        at = dice.randrange(len(found) + 1)
        match dice.randrange(4):
            case 0:
                found[at : at + 1] = dice.randbytes(1)
            case 1:
                del found[at : at + dice.randrange(1, 20)]
            case 2:
                found[at:at] = found[at : at + dice.randrange(1, 200)]
            case _:
                found[at:at] = dice.choice((b"\0", b"\r\n", b"\r\n\r\n", b"\xff", b":", b" ", b"\n"))
    return bytes(found)


@pytest.mark.parametrize("source", [of_requests, of_handshakes, of_random_bytes, of_tls])
async def test_noise(
    server: TestServer,
    dice: random.Random,
    rounds: Iterator[int],
    source: Callable[[TestServer, random.Random], bytes],
) -> None:
    async with client_of(server, newer=True) as client:
        pid = await client.run("exec cat")
        await healthy(server)
        before = memory_bytes(server)
        for number in rounds:
            batch = [damaged(source(server, dice), dice) for _ in range(10)]
            await asyncio.gather(*(say(server, data, dice) for data in batch))
            await echo(client, pid, number)
        await healthy(server)
        assert memory_bytes(server) - before < 32 << 20
    quiet(server)


async def echo(client: Client, pid: int, number: int) -> None:
    start = len(client.seen)
    await client.type(pid, b"%d;" % number)
    await client.text(pid, f"{number};", start)


async def test_noise_after_a_right_token(
    server: TestServer, dice: random.Random, rounds: Iterator[int]
) -> None:
    """Damaged frames of one client end its connection at most, and nothing of another's."""
    async with client_of(server, newer=True) as client:
        pid = await client.run("exec cat")
        messages = [b'{"type":"list"}', b'{"type":"ping","id":1}', b"{}", bytes(30)]
        before = memory_bytes(server)
        for number in rounds:
            data = b"".join(
                frame(
                    dice.choice((0, 1, 1, 1, 2, 8, 9, 10)), dice.choice(messages), final=dice.random() < 0.8
                )
                for _ in range(20)
            )
            with contextlib.suppress(TimeoutError):
                await say(server, upgrade(server) + damaged(data, dice), dice)
            await echo(client, pid, number)
        assert memory_bytes(server) - before < 32 << 20
    assert not [line for line in lines(server) if "Traceback" in line]
    await healthy(server)
