"""Resumable uploads as a client of tus 1.0 sees them, through a real server."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from mhnos_runtime.testing import TestServer
from tests.server.tus import OCTETS, Answer, Tus, metadata

pytestmark = pytest.mark.asyncio(loop_scope="module")

DATA = bytes(range(256)) * 40


@pytest_asyncio.fixture(loop_scope="module")
async def tus(server: TestServer) -> Tus:
    return Tus(server)


def digest(name: str, data: bytes) -> str:
    return f"{name} {base64.b64encode(hashlib.new(name, data).digest()).decode()}"


async def make(tus: Tus, path: str, length: int | None = len(DATA), **values: str) -> str:
    made = await tus.create(length, path=path, **values)
    assert (made.status, made.offset) == (201, 0), made
    return made.where


async def test_a_whole_upload(server: TestServer, tus: Tus) -> None:
    made = await tus.create(len(DATA), path="/deep/er/a.bin", mode="0640", mtime="1600000000123")
    assert made.status == 201
    assert made.headers["tus-resumable"] == "1.0.0"
    assert "upload-expires" in made.headers
    target = server.workspace / "deep/er/a.bin"
    half = await tus.go_on(made.where, 0, DATA[:1000])
    assert (half.status, half.offset) == (204, 1000)
    assert not target.exists()
    asked = await tus.head(made.where)
    assert (asked.status, asked.offset, asked.headers["upload-length"]) == (200, 1000, str(len(DATA)))
    assert asked.headers["cache-control"] == "no-store"
    assert asked.headers["upload-metadata"] == metadata(
        path="/deep/er/a.bin", mode="0640", mtime="1600000000123"
    )
    done = await tus.go_on(made.where, 1000, DATA[1000:])
    assert (done.status, done.offset) == (204, len(DATA))
    assert target.read_bytes() == DATA
    status = target.stat()
    assert (status.st_mode & 0o777, status.st_mtime_ns) == (0o640, 1_600_000_000_123_000_000)
    assert done.headers["etag"] == f'"{done.version}"'
    assert done.headers["mhnos-mode"] == "0640"
    assert done.headers["mhnos-mtime"] == "1600000000123"
    assert os.listdir(target.parent) == ["a.bin"]


async def test_the_answer_to_the_last_request_was_lost(server: TestServer, tus: Tus) -> None:
    where = await make(tus, "/lost")
    done = await tus.go_on(where, 0, DATA)
    for again in (await tus.head(where), await tus.go_on(where, len(DATA), b"")):
        assert (again.offset, again.version) == (len(DATA), done.version)
    more = await tus.go_on(where, len(DATA), b"x")
    assert (more.status, b"too-large" in more.body) == (413, True)
    assert (await tus.delete(where)).status == 204
    assert (server.workspace / "lost").read_bytes() == DATA


async def test_creation_with_upload(server: TestServer, tus: Tus) -> None:
    made = await tus.create(len(DATA), DATA[:5], path="/with")
    assert (made.status, made.offset) == (201, 5)
    assert (await tus.go_on(made.where, 5, DATA[5:])).status == 204
    whole = await tus.create(len(DATA), DATA, path="/whole")
    assert (whole.status, whole.offset) == (201, len(DATA))
    assert "etag" in whole.headers
    assert (server.workspace / "with").read_bytes() == DATA == (server.workspace / "whole").read_bytes()


async def test_an_empty_file_is_there_at_once(server: TestServer, tus: Tus) -> None:
    made = await tus.create(0, path="/empty")
    assert (made.status, made.offset, "etag" in made.headers) == (201, 0, True)
    assert (server.workspace / "empty").read_bytes() == b""


async def test_a_length_that_is_told_later(server: TestServer, tus: Tus) -> None:
    where = await make(tus, "/deferred", None)
    assert (await tus.go_on(where, 0, DATA[:10])).offset == 10
    assert (await tus.head(where)).headers["upload-defer-length"] == "1"
    short = await tus.go_on(where, 10, b"", Upload_Length="9")
    assert short.status == 400
    assert (await tus.go_on(where, 10, DATA[10:20], Upload_Length=str(len(DATA)))).offset == 20
    assert (await tus.go_on(where, 20, b"", Upload_Length="20")).status == 400
    assert (await tus.head(where)).headers["upload-length"] == str(len(DATA))
    assert (await tus.go_on(where, 20, DATA[20:])).status == 204
    assert (server.workspace / "deferred").read_bytes() == DATA


@pytest.mark.parametrize("name", ["sha1", "sha256"])
async def test_checksums(server: TestServer, tus: Tus, name: str) -> None:
    path = f"/checked-{name}"
    where = await make(tus, path)
    assert (await tus.go_on(where, 0, DATA[:100], Upload_Checksum=digest(name, DATA[:100]))).offset == 100
    wrong = await tus.go_on(where, 100, DATA[100:], Upload_Checksum=digest(name, b"other"))
    assert (wrong.status, b"checksum-mismatch" in wrong.body) == (460, True)
    assert (await tus.head(where)).offset == 100
    assert not (server.workspace / path[1:]).exists()
    whole = await tus.go_on(where, 100, DATA[100:], Upload_Checksum=digest(name, DATA[100:]))
    assert whole.status == 204
    assert (server.workspace / path[1:]).read_bytes() == DATA


async def test_what_came_of_a_cut_request_with_a_checksum_does_not_count(tus: Tus) -> None:
    where = await make(tus, "/cut-checked")
    request = tus.patch(where, 0, DATA, Upload_Checksum=digest("sha256", DATA))
    await tus.cut(request[:-10])
    assert (await tus.head(where)).offset == 0


@pytest.mark.parametrize("text", ["md5 AAAA", "sha1 ***", "sha1"])
async def test_checksums_that_are_none(tus: Tus, text: str) -> None:
    where = await make(tus, "/odd-checksum")
    answer = await tus.go_on(where, 0, b"x", Upload_Checksum=text)
    assert answer.status == (400 if text != "sha1" else 460)
    assert (await tus.delete(where)).status == 204


async def test_conditions(server: TestServer, tus: Tus) -> None:
    first = await tus.create(3, b"one", path="/cond", ifNoneMatch="*")
    assert first.status == 201
    refused = await tus.create(3, path="/cond", ifNoneMatch="*")
    assert (refused.status, b"already-exists" in refused.body) == (412, True)
    wrong = await tus.create(3, path="/cond", ifMatch="0" * 24)
    assert (wrong.status, b'"changed"' in wrong.body) == (412, True)
    second = await tus.create(3, b"two", path="/cond", ifMatch=first.version)
    assert second.status == 201
    raced = await make(tus, "/cond", 5, ifMatch=f'"{second.version}"')
    (server.workspace / "cond").write_bytes(b"by a process")
    late = await tus.go_on(raced, 0, b"three")
    assert (late.status, b'"changed"' in late.body) == (412, True)
    assert (server.workspace / "cond").read_bytes() == b"by a process"
    # What was sent stays until it expires or is ended.
    assert (await tus.head(raced)).status == 412
    assert (await tus.delete(raced)).status == 204
    assert (await tus.head(raced)).status == 404


async def test_termination_removes_what_has_arrived(server: TestServer, tus: Tus) -> None:
    where = await make(tus, "/ended/f")
    await tus.go_on(where, 0, b"some")
    assert len(os.listdir(server.workspace / "ended")) == 1
    assert (await tus.delete(where)).status == 204
    assert os.listdir(server.workspace / "ended") == []
    assert not list((server.state_dir / "uploads").glob(f"{Path(where).name}*"))
    for answer in (await tus.head(where), await tus.go_on(where, 4, b"x"), await tus.delete(where)):
        assert answer.status == 404


async def test_what_this_server_can(server: TestServer, tus: Tus) -> None:
    answer = await tus.send(tus.request("OPTIONS", "/v1/uploads", {"Tus-Resumable": None}))
    assert answer.status == 204
    assert answer.headers["tus-version"] == "1.0.0"
    assert "creation-defer-length" in answer.headers["tus-extension"].split(",")
    assert answer.headers["tus-checksum-algorithm"] == "sha1,sha256"
    disk = os.statvfs(server.workspace)
    assert 0 < int(answer.headers["tus-max-size"]) < disk.f_bavail * disk.f_frsize


async def refused(tus: Tus, answer: Answer, status: int, code: str) -> None:
    assert (answer.status, code in answer.body.decode()) == (status, True), answer
    assert answer.headers["tus-resumable"] == "1.0.0"


async def test_refusals_of_the_protocol(server: TestServer, tus: Tus) -> None:
    where = await make(tus, "/refusals")
    for version in (None, "0.2.2", "1.0.0, 0.2"):
        old = await tus.send(tus.request("HEAD", where, {"Tus-Resumable": version}))
        assert (old.status, old.headers["tus-version"]) == (412, "1.0.0")
    plain = {"Content-Type": "application/octet-stream", "Upload-Offset": "0"}
    await refused(tus, await tus.send(tus.request("PATCH", where, plain, b"x")), 415, "unsupported-type")
    await refused(tus, await tus.go_on(where, 7, b"x"), 409, "offset-mismatch")
    await refused(tus, await tus.go_on(where, 0, DATA + b"x"), 413, "too-large")
    unknown = where[:-1] + ("0" if where[-1] != "0" else "1")
    await refused(tus, await tus.go_on(unknown, 0, b"x"), 404, "not-found")
    assert (await tus.head(where)).offset == 0


async def test_more_than_its_length_in_chunks(server: TestServer, tus: Tus) -> None:
    where = await make(tus, "/chunks", 5)
    chunked = {"Content-Length": None, "Transfer-Encoding": "chunked"}
    headers = {"Content-Type": OCTETS, "Upload-Offset": "0", **chunked}
    answer = await tus.send(tus.request("PATCH", where, headers) + b"6\r\nabcdef\r\n0\r\n\r\n")
    await refused(tus, answer, 413, "too-large")
    assert not (server.workspace / "chunks").exists()
    answer = await tus.send(tus.request("PATCH", where, headers) + b"5\r\nabcde\r\n0\r\n\r\n")
    assert (answer.status, answer.offset) == (204, 5)


HEADERS: list[Mapping[str, str | None]] = [
    {"Upload-Length": "-1"},
    {"Upload-Length": "1e3"},
    {"Upload-Length": "9007199254740992"},
    {"Upload-Length": "9" * 400},
    {"Upload-Length": "\u0663"},
    {"Upload-Length": None},
    {"Upload-Length": "3", "Upload-Defer-Length": "1"},
    {"Upload-Length": None, "Upload-Defer-Length": "2"},
    {"Upload-Concat": "partial"},
    {"Upload-Metadata": None},
    {"Upload-Metadata": "path"},
    {"Upload-Metadata": "path ***"},
    {"Upload-Metadata": "path L2E=, path L2E="},
    {"Upload-Metadata": "path L2E=,,"},
    {"Upload-Metadata": "p\u00e4th L2E="},
    {"Upload-Metadata": metadata(path="/h", mode="999")},
    {"Upload-Metadata": metadata(path="/h", mode="4777")},
    {"Upload-Metadata": metadata(path="/h", mtime="soon")},
    {"Upload-Metadata": metadata(path="/h", mtime="9" * 16)},
    {"Upload-Metadata": metadata(path="/h", ifMatch="abc")},
    {"Upload-Metadata": metadata(path="/h", ifNoneMatch="x")},
]


@pytest.mark.parametrize("headers", HEADERS)
async def test_headers_that_say_nothing_right(
    server: TestServer, tus: Tus, headers: Mapping[str, str | None]
) -> None:
    sent = {"Upload-Length": "3", "Upload-Metadata": metadata(path="/h"), **headers}
    answer = await tus.send(tus.request("POST", "/v1/uploads", sent))
    assert answer.status == 400, answer
    assert not (server.workspace / "h").exists()


PATHS = [
    ("../out", 403),
    ("/a/../../out", 403),
    ("/workspace/../../x", 403),
    ("/nul\0", 400),
    ("/", 400),
    ("/" + "n" * 256, 400),
    ("/" + "d/" * 2100, 400),
]


@pytest.mark.parametrize(("path", "status"), PATHS)
async def test_path_tricks(server: TestServer, tus: Tus, path: str, status: int) -> None:
    before = set(os.listdir(server.workspace.parent))
    answer = await tus.create(3, b"abc", path=path)
    assert answer.status == status, answer
    assert set(os.listdir(server.workspace.parent)) == before


async def test_a_link_that_leads_out(server: TestServer, tus: Tus) -> None:
    (server.workspace / "out").symlink_to("../state/uploads")
    (server.workspace / "away").symlink_to("/etc")
    for path in ("/out/x", "/away/x", "/out", "/away"):
        assert (await tus.create(3, b"abc", path=path)).status == 403
    not_utf8 = base64.b64encode(b"/\xff\xfe").decode()
    sent = {"Upload-Length": "3", "Upload-Metadata": f"path {not_utf8}"}
    assert (await tus.send(tus.request("POST", "/v1/uploads", sent))).status == 400


IDS = [
    "..",
    "%2e%2e",
    "..%2ftoken",
    "%00",
    "a" * 31,
    "A" * 32,
    "g" * 32,
    "0" * 33,
    "0" * 32 + "%00",
    "0" * 32 + ".json",
    "0" * 32 + "/",
    "%30" * 32,
    "\u0660" * 8,
    "0" * 4000,
]


@pytest.mark.parametrize("text", IDS)
@pytest.mark.parametrize("method", ["HEAD", "DELETE", "PATCH"])
async def test_ids_with_tricks(server: TestServer, tus: Tus, text: str, method: str) -> None:
    path = "/v1/uploads/" + (text if text.isascii() else "%D9%A0" * 8)
    headers = {"Content-Type": OCTETS, "Upload-Offset": "0"} if method == "PATCH" else {}
    answer = await tus.send(tus.request(method, path, headers))
    assert answer.status in (404, 405), answer
    assert (server.state_dir / "token").exists()


async def test_headers_that_are_too_large(server: TestServer, tus: Tus) -> None:
    for size in (9000, 200_000):
        sent = {"Upload-Length": "3", "Upload-Metadata": "path L2E=,x " + "A" * size}
        try:
            answer = await tus.send(tus.request("POST", "/v1/uploads", sent))
        except (ConnectionError, EOFError):
            continue
        assert answer.status == 400
    path = "/" + "/".join(["n" * 200] * 20)
    assert (await tus.create(1, b"x", path=path)).status == 201


async def test_a_length_that_no_disk_has(server: TestServer, tus: Tus) -> None:
    before = len(os.listdir(server.workspace))
    answer = await tus.create(2**53 - 1, path="/huge")
    assert (answer.status, b"disk-full" in answer.body) == (507, True)
    assert len(os.listdir(server.workspace)) == before


async def test_methods_that_something_on_the_way_does_not_pass(server: TestServer, tus: Tus) -> None:
    where = await make(tus, "/override")
    headers = {"Content-Type": OCTETS, "Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
    assert (await tus.send(tus.request("POST", where, headers, DATA[:9]))).offset == 9
    assert (await tus.send(tus.request("POST", where, {"X-HTTP-Method-Override": "GET"}))).status == 405
    assert (await tus.send(tus.request("POST", where, {"X-HTTP-Method-Override": "DELETE"}))).status == 204


@pytest.mark.parametrize(
    ("sent", "scheme"),
    [
        ({}, "http"),
        ({"X-Forwarded-Proto": "https, http"}, "https"),
        ({"X-Forwarded-Proto": "gopher"}, "http"),
        ({"Origin": "own"}, "http"),
    ],
)
async def test_the_address_of_an_upload(tus: Tus, sent: Mapping[str, str | None], scheme: str) -> None:
    """Whole, since aiotus takes nothing less; with the scheme that its client uses."""
    own = f"{tus.host}:{tus.port}"
    headers = {name: f"http://{own}" if value == "own" else value for name, value in sent.items()}
    request = {"Upload-Length": "0", "Upload-Metadata": metadata(path="/address"), **headers}
    made = await tus.send(tus.request("POST", "/v1/uploads", request))
    assert made.where.startswith(f"{scheme}://{own}/v1/uploads/")
    assert len(made.where.rpartition("/")[2]) == 32


async def test_grants_are_honoured_by_each_request(server: TestServer, tus: Tus) -> None:
    """What one token began another one does not see; one for a folder, or for reading, changes nothing
    elsewhere."""
    (server.workspace / "own").mkdir()
    grants: dict[str, Mapping[str, object]] = {
        "files": {},
        "folder": {"paths": ["/own"]},
        "reading": {"readOnly": True},
    }
    made = {name: await token(server, f"up-{name}", **rights) for name, rights in grants.items()}
    files, folder, reading = (Tus(server, each) for each in made.values())
    where = await make(files, "/granted")
    for other in (tus, folder):
        assert (await other.head(where)).status == 404
        assert (await other.go_on(where, 0, b"x")).status == 404
        assert (await other.delete(where)).status == 404
    assert (await folder.create(1, path="/elsewhere")).status == 403
    own = await make(folder, "/own/f", 1)
    assert (await folder.go_on(own, 0, b"x")).status == 204
    assert (await reading.create(1, path="/read")).status == 403
    for method in ("HEAD", "PATCH", "DELETE"):
        assert (await reading.send(reading.request(method, where))).status == 403
    nobody = Tus(server, "x" * 43)
    assert (await nobody.head(where)).status == 401
    assert (await files.go_on(where, 0, DATA)).status == 204


async def test_a_grant_that_is_revoked_ends_its_upload(server: TestServer) -> None:
    files = Tus(server, await token(server, "up-revoked"))
    where = await make(files, "/revoked")
    async with files.connected() as (reader, writer):
        writer.write(files.patch(where, 0, DATA)[:-10])
        await writer.drain()
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {server.token}"}) as session:
            (await session.delete(f"{server.url}/v1/tokens/up-revoked")).raise_for_status()
        assert await reader.read() == b""
    assert (await files.head(where)).status == 401
    assert not (server.workspace / "revoked").exists()


async def token(server: TestServer, name: str, **rights: object) -> str:
    """A new one for files."""
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {server.token}"}) as session:
        answer = await session.post(
            f"{server.url}/v1/tokens", json={"name": name, "scopes": ["files"], **rights}
        )
        made = await answer.json()
        assert answer.status == 201, made
        return str(made["token"])
