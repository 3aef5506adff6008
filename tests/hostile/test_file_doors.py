"""Files over HTTP for who wants more than he may: paths that lead out, what is no file, clients that vanish
or dawdle, files that change under those who read them, and two who write one."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from mhnos_runtime.testing import TestServer
from tests.hostile.crowd import memory_bytes
from tests.hostile.file_doors import PATIENCE, SECRET, Peer, beside_a_secret, peer

pytestmark = pytest.mark.asyncio(loop_scope="module")

BIG = 64 << 20
MIB = 1 << 20


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TestServer]:
    async with beside_a_secret(tmp_path_factory.mktemp("files")) as running:
        yield running


def descriptors(server: TestServer) -> int:
    return len(os.listdir(f"/proc/{server.server_pid()}/fd"))


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not check():  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.01)


def leftovers(server: TestServer) -> list[str]:
    return [each.name for each in server.workspace.rglob(".mhnos-push-*")]


TRICKS = [
    *("../secret/canary", "%2e%2e/secret/canary", "%2E%2E/secret/canary", ".%2e/secret/canary"),
    *(
        "..%2fsecret%2fcanary",
        "%2e%2e%2fsecret%2fcanary",
        "a/../../secret/canary",
        "a/%2e%2e/%2e%2e/secret/canary",
    ),
    *("%252e%252e/secret/canary", "%252e%252e%252fsecret%252fcanary", "%25252e%25252e/secret/canary"),
    *("..%5csecret%5ccanary", "..\\secret\\canary", "..;/secret/canary", "....//secret/canary"),
    *("%c0%ae%c0%ae/secret/canary", "%e0%80%ae%e0%80%ae/secret/canary", "%uff0e%uff0e/secret/canary"),
    *("/etc/passwd", "//etc/passwd", "%2fetc%2fpasswd", "/%2e%2e/secret/canary", "./../secret/canary"),
    *("%00", "a%00", "a%00/../../secret/canary", "..%00/secret/canary", "%2e%2e%00/secret/canary"),
    *(
        "absolute",
        "relative",
        "chain",
        "absolute/passwd",
        "folder/canary",
        "loop",
        "loop/x",
        "root/etc/passwd",
    ),
    *(
        "workspace/../secret/canary",
        "workspace/%2e%2e/secret/canary",
        "workspace/workspace/../../secret/canary",
    ),
    *("%ff%fe", "\xff\xfe", "a\x7fb", "x" * 256, "x/" * 3000 + "y", "%78" * 256, "proc", "proc/1/environ"),
    *(
        "?path=../secret/canary",
        "#/../secret/canary",
        "a%0d%0aX-Injected:%20yes",
        "%",
        "%2",
        "%zz",
        "%2e",
        "%2e%2e",
    ),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def traps(server: TestServer) -> Path:
    """Links out of the workspace."""
    for name, target in (
        ("absolute", "/etc/passwd"),
        ("relative", "../secret/canary"),
        ("chain", "relative"),
        ("folder", "../secret"),
        ("loop", "loop"),
        ("root", "/"),
        ("proc", "/proc/self"),
    ):
        (server.workspace / name).symlink_to(target)
    return server.workspace


@pytest.mark.parametrize("trick", TRICKS)
async def test_no_spelling_of_a_path_leads_out(server: TestServer, traps: Path, trick: str) -> None:
    """What is made of a spelling that is only an odd name is made inside."""
    for base in ("/v1/files/", "/v1//files/", "/v1/./files/", "/%761/files/"):
        async with peer(server) as client:
            got = await client.ask("GET", base + trick)
            # 200: it is only an odd name, and was made here by the line below.
            assert got.status in (400, 403, 404) or (got.status, got.body) == (200, b"mine"), got
        async with peer(server) as client:
            got = await client.ask("PUT", base + trick, b"mine")
            assert got.status in (200, 201, 400, 403, 404), got
            assert "x-injected" not in got.headers
    assert (traps.parent / "secret/canary").read_bytes() == SECRET


async def test_a_target_with_an_address_in_it_means_the_same(server: TestServer, traps: Path) -> None:
    for target in (
        "http://evil.example/v1/files/relative",
        f"{server.url}/v1/files/../secret/canary",
        "*",
        "x",
    ):
        async with peer(server) as client:
            got = await client.ask("GET", target)
            assert got.status in (400, 403, 404, 421)
            assert SECRET not in got.body


async def test_what_is_no_file_is_never_opened(server: TestServer) -> None:
    """A FIFO would hold a thread until somebody writes; a terminal would be taken."""
    (folder := server.workspace / "odd").mkdir()
    os.mkfifo(folder / "fifo")
    (folder / "to-fifo").symlink_to("fifo")
    (folder / "to-zero").symlink_to("/dev/zero")
    (folder / "dir").mkdir()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(folder / "socket"))
    names = ["fifo", "to-fifo", "to-zero", "socket", "dir", "fifo/x"]
    try:
        os.mknod(folder / "zero", 0o020666, os.makedev(1, 5))
        names.append("zero")
    except PermissionError:
        pass  # not root: there can be no device here either
    kinds = {name: os.lstat(folder / name).st_mode for name in names if name != "fifo/x"}
    for name in names:
        async with peer(server) as client:
            for method, body in (("GET", b""), ("HEAD", b""), ("PUT", b"x")):
                await client.send(
                    client.head(method, f"/v1/files/odd/{name}", Content_Length=len(body)) + body
                )
                got = await client.begun()
                assert got.status in (400, 403), (name, method, got)
                if method != "HEAD":
                    assert (await client.rest(got)).whole
    with pytest.raises(OSError, match="No such device or address"):
        os.open(folder / "fifo", os.O_WRONLY | os.O_NONBLOCK)  # nobody has it open for reading
    assert {name: os.lstat(folder / name).st_mode for name in kinds} == kinds


async def test_nothing_of_an_upload_is_left_when_its_client_vanishes(server: TestServer) -> None:
    path, body = server.workspace / "kept", os.urandom(3 * MIB)
    path.write_bytes(b"old")
    async with peer(server) as client:
        assert (await client.ask("GET", "/v1/files/kept")).body == b"old"
    before = descriptors(server)
    for sent in (0, 1, 100_000, len(body) - 1):
        for chunked in (False, True):
            async with peer(server) as client:
                how = {"Transfer_Encoding": "chunked"} if chunked else {"Content_Length": len(body)}
                size = b"%x\r\n" % len(body) if chunked else b""
                await client.send(client.head("PUT", "/v1/files/kept", **how) + size + body[:sent])
                # What was sent is with the server when another request has been answered.
                async with peer(server) as other:
                    await other.ask("GET", "/v1/files/kept")
                client.vanish()
    await until(lambda: descriptors(server) <= before)
    assert path.read_bytes() == b"old"
    assert leftovers(server) == []


async def test_an_answer_that_nobody_waits_for_leaves_a_whole_file(server: TestServer) -> None:
    path, body = server.workspace / "whole", os.urandom(MIB)
    path.write_bytes(b"old")
    for _ in range(5):
        async with peer(server) as client:
            await client.send(client.head("PUT", "/v1/files/whole", Content_Length=len(body)) + body)
            client.vanish()
    async with peer(server) as client:
        assert (await client.ask("GET", "/v1/files/whole")).body in (b"old", body)
    assert leftovers(server) == []


@pytest_asyncio.fixture(loop_scope="module")
async def big(server: TestServer) -> AsyncIterator[Path]:
    """A file that is larger than all buffers on the way to a client."""
    path = server.workspace / "big"
    with path.open("wb") as file:
        file.truncate(BIG)
    os.utime(path, ns=(1, 1))
    yield path
    path.unlink(missing_ok=True)


async def test_a_download_whose_client_vanishes_costs_nothing_more(server: TestServer, big: Path) -> None:
    before = descriptors(server)
    for _ in range(10):
        async with peer(server) as client:
            await client.send(client.head("GET", f"/v1/files/{big.name}"))
            assert (await client.begun()).length == BIG
            client.vanish()
    await until(lambda: descriptors(server) <= before)


def shrink(path: Path) -> None:
    os.truncate(path, 8 * MIB)


def rewrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def replace(path: Path) -> None:
    path.with_name("another").write_bytes(b"x" * 100)
    path.with_name("another").replace(path)


@pytest.mark.parametrize(
    ("change", "whole"),
    [(shrink, False), (rewrite, False), (grow, True), (replace, True), (Path.unlink, True)],
)
async def test_nobody_takes_half_of_one_file_and_half_of_another_for_a_file(
    server: TestServer, big: Path, change: Callable[[Path], None], whole: bool
) -> None:
    async with peer(server) as client:
        await client.send(client.head("GET", f"/v1/files/{big.name}"))
        got = await client.begun()
        change(big)
        await client.rest(got)
        assert got.length == BIG
        assert got.whole is whole
        assert not got.body.strip(b"\0")
        if not whole:
            assert await client.ended()


async def test_of_two_who_make_one_file_one_is_told(server: TestServer) -> None:
    bodies = [bytes([number]) * (2 * MIB + number) for number in range(6)]

    async def write(body: bytes, **condition: str) -> int:
        async with peer(server) as client:
            return (await client.ask("PUT", "/v1/files/contested", body, **condition)).status

    async def compete(won: int, **condition: str) -> bytes:
        statuses = await asyncio.gather(*(write(body, **condition) for body in bodies))
        assert sorted(statuses) == sorted([won, *[412] * (len(bodies) - 1)])
        content = (server.workspace / "contested").read_bytes()
        assert content == bodies[statuses.index(won)]
        return content

    for _ in range(3):
        await compete(201, If_None_Match="*")
        async with peer(server) as client:
            version = (await client.ask("HEAD", "/v1/files/contested")).version
        (server.workspace / "contested").unlink()
    assert version
    assert 201 in await asyncio.gather(*(write(body) for body in bodies))
    assert (server.workspace / "contested").read_bytes() in bodies


async def test_of_two_edits_of_one_version_only_one_is_taken(server: TestServer) -> None:
    """The look and the rename are two steps for the kernel, and both edits were taken."""
    async with peer(server) as client:
        version = (await client.ask("PUT", "/v1/files/edited", b"0")).version

    async def edit(body: bytes) -> int:
        async with peer(server) as client:
            return (await client.ask("PUT", "/v1/files/edited", body, If_Match=version)).status

    for _ in range(3):
        statuses = await asyncio.gather(*(edit(b"%d" % number) for number in range(8)))
        assert sorted(statuses) == [200, *[412] * 7]
        assert (server.workspace / "edited").read_bytes() == b"%d" % statuses.index(200)
        async with peer(server) as client:
            version = (await client.ask("HEAD", "/v1/files/edited")).version
    async with peer(server) as client:
        for number in range(5):
            first = await client.ask("PUT", "/v1/files/edited", b"a%d" % number, If_Match=version)
            late = await client.ask("PUT", "/v1/files/edited", b"b", If_Match=version)
            assert (first.status, late.status, late.code) == (200, 412, "changed")
            version = first.version
    assert (server.workspace / "edited").read_bytes() == b"a4"


async def test_a_client_that_sends_single_bytes_is_served(server: TestServer) -> None:
    async with peer(server) as client:
        request = client.head("PUT", "/v1/files/slow", Transfer_Encoding="chunked")
        request += b"3\r\nabc\r\n5;extension=x\r\ndefgh\r\n0\r\nTrailer: x\r\n\r\n"
        for byte in request:
            await client.send(bytes([byte]))
        assert (await client.answer()).status == 201
        assert (await client.ask("GET", "/v1/files/slow")).body == b"abcdefgh"


async def test_many_slow_clients_cost_bounded_memory(server: TestServer, big: Path) -> None:
    """20 who take nothing of a download, and 20 who send half of an upload."""
    async with peer(server) as client:
        await client.ask("GET", "/v1/files/kept")
        before = memory_bytes(server)
        async with slow_ones(server, "GET", big.name, 20), slow_ones(server, "PUT", "half", 20):
            assert (await client.ask("GET", "/v1/files/kept")).status in (200, 404, 503)
            assert memory_bytes(server) - before < 64 * MIB
    await until(lambda: not leftovers(server))
    assert not (server.workspace / "half0").exists()


class slow_ones:  # noqa: N801 - a context manager
    """So many clients, each with a transfer that does not go on."""

    def __init__(self, server: TestServer, method: str, name: str, count: int) -> None:
        self._server, self._method, self._name, self._count = server, method, name, count
        self._open: list[tuple[object, Peer]] = []

    async def __aenter__(self) -> None:
        for number in range(self._count):
            context = peer(self._server, limit=1024)
            client = await context.__aenter__()
            self._open.append((context, client))
            if self._method == "GET":
                client.writer.write(client.head("GET", f"/v1/files/{self._name}"))
                assert (await client.begun()).status == 200
            else:
                head = client.head("PUT", f"/v1/files/{self._name}{number}", Content_Length=2 * MIB)
                await client.send(head + bytes(MIB))

    async def __aexit__(self, *_: object) -> None:
        for _context, client in self._open:
            client.vanish()


async def test_a_grant_that_is_revoked_ends_what_goes_on_with_it(server: TestServer, big: Path) -> None:
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {server.token}"}) as operator:
        made = await operator.post(f"{server.url}/v1/tokens", json={"name": "brief", "scopes": ["files"]})
        token = json.loads(await made.text())["token"]
        async with peer(server, token) as down, peer(server, token) as up, peer(server) as other:
            await down.send(down.head("GET", f"/v1/files/{big.name}"))
            await up.send(up.head("PUT", "/v1/files/revoked", Content_Length=BIG) + bytes(MIB))
            await other.send(other.head("PUT", "/v1/files/others", Content_Length=4))
            got = await down.begun()
            await operator.delete(f"{server.url}/v1/tokens/brief")
            assert await up.ended()
            assert not (await down.rest(got)).whole
            await other.send(b"mine")
            assert (await other.answer()).status == 201
    await until(lambda: not leftovers(server))
    assert not (server.workspace / "revoked").exists()


ODD = [
    *(
        "bytes=",
        "bytes=-",
        "bytes=--1",
        "bytes=1-2-3",
        "bytes=" + "0-1," * 2000 + "5-6",
        "bytes=0x1-",
        "\xff",
        "0-1",
    ),
    *(
        "bytes=" + "9" * 4000,
        "bytes=-" + "9" * 4000,
        "bytes=0-" + "9" * 18,
        "bytes= 0 - 1",
        "*",
        '"',
        "W/",
        '""',
        ",",
    ),
    *(
        "\x80",
        'W/""',
        '"a"' * 1000,
        "Thu, 99 Foo 99999 99:99:99 GMT",
        "0",
        "-1",
        "Thu, 01 Jan 0001 00:00:00 GMT",
    ),
    *("Fri, 31 Dec 9999 23:59:59 GMT", "Thu, 01 Jan 1970 00:00:00 +9999", "1e400", "nan"),
]


@pytest.mark.parametrize("name", ["Range", "If_Range", "If_Match", "If_None_Match"])
async def test_headers_that_are_nonsense_are_no_defect(server: TestServer, name: str) -> None:
    await odd_headers(server, name)


@pytest.mark.parametrize(
    "name", ["If_Modified_Since", "If_Unmodified_Since", "Mhnos_Mode", "Mhnos_Mtime", "Expect"]
)
async def test_dates_and_numbers_that_are_nonsense_are_no_defect(server: TestServer, name: str) -> None:
    await odd_headers(server, name)


async def odd_headers(server: TestServer, name: str) -> None:
    (server.workspace / "plain").write_bytes(b"content")
    for value in ODD:
        for method, body in (("GET", b""), ("PUT", b"content")):
            async with peer(server) as client:
                got = await client.ask(method, "/v1/files/plain", body, **{name: value})
                assert got.status in (200, 206, 304, 400, 412, 416), (value, got)
    assert "defect in a request" not in server.log.read_text()
