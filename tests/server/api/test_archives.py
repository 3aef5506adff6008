"""Directories as archives over real sockets: both ways, for each grant, cut in each phase, on a full disk."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import tarfile
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mhnos_runtime.files.archives.walk import SKIPPED_NAME
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.server.api.archives import FEED_BYTES, Archives
from mhnos_runtime.server.api.files import FileRoutes
from mhnos_runtime.server.auth.grants import EVERYTHING, Grant, Scope
from mhnos_runtime.server.auth.live import Live
from mhnos_runtime.server.files.work import FileWork
from tests.files.archives.packing import archive, member
from tests.server.http.site import Some, serve

READER = Grant("token:reader", frozenset({Scope.FILES}), read_only=True)
FOLDER = Grant("token:folder", frozenset({Scope.FILES}), paths=("/mine",))
VIEW = Grant("token:view", frozenset({Scope.VIEW}))
FORMS = ["tar", "zip"]


@dataclass
class Answer:
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Api:
    def __init__(self, root: Path, address: tuple[str, int], session: aiohttp.ClientSession) -> None:
        self.root, self.address, self.session = root, address, session

    async def ask(
        self, method: str, path: str, form: str, data: Any = None, token: str = "operator"
    ) -> Answer:
        async with self.session.request(
            method,
            "http://{}:{}/v1/files{}?archive={}".format(*self.address, path, form),
            data=io.BytesIO(data) if isinstance(data, bytes) else data,
            headers={"Authorization": f"Bearer {token}"},
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str, form: str, token: str = "operator") -> Answer:
        return await self.ask("GET", path, form, token=token)

    async def put(self, path: str, form: str, data: Any, token: str = "operator") -> Answer:
        return await self.ask("PUT", path, form, data, token)

    async def raw(self, head: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection on which this was asked, with the operator's token."""
        reader, writer = await asyncio.open_connection(*self.address)
        writer.write(f"{head}\r\nHost: 127.0.0.1\r\nAuthorization: Bearer operator\r\n".encode())
        return reader, writer

    def below(self, path: str) -> set[str]:
        """The names of everything below a folder, unfinished files, too."""
        return {str(each.relative_to(self.root / path)) for each in (self.root / path).rglob("*")}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    root = tmp_path / "workspace"
    root.mkdir()
    async with site(root) as made:
        yield made


class site:  # noqa: N801 - reads as the function that it would be
    """An Api over a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def __aenter__(self) -> Api:
        self._work, self._workspace = FileWork(), Workspace(self._root)
        rows = FileRoutes(self._workspace, self._work, Archives(self._workspace, self._work)).rows()
        tokens = Some(EVERYTHING, READER, FOLDER, VIEW)
        self._served = serve(rows, tokens, Live(asyncio.get_running_loop()))
        address = await self._served.__aenter__()
        self._session = aiohttp.ClientSession()
        return Api(self._root, address, self._session)

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        await self._served.__aexit__(None, None, None)
        await asyncio.to_thread(self._work.close)
        self._workspace.close()


def pack(form: str, **files: bytes) -> bytes:
    if form == "tar":
        return archive(*(member(name, content) for name, content in files.items()))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packing:
        for name, content in files.items():
            packing.writestr(name, content)
    return out.getvalue()


def names(form: str, data: bytes) -> list[str]:
    if form == "tar":
        with tarfile.open(fileobj=io.BytesIO(data)) as opened:
            return sorted(opened.getnames())
    with zipfile.ZipFile(io.BytesIO(data)) as opened_zip:
        return sorted(opened_zip.namelist())


async def until(reached: Any) -> None:
    """Waits for something that other threads do; the test's time is the limit."""
    while not reached():  # noqa: ASYNC110 - it is told of by nobody
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("form", FORMS)
async def test_a_folder_goes_out_and_comes_back(api: Api, form: str) -> None:
    (api.root / "a/deep").mkdir(parents=True)
    (api.root / "a/deep/large").write_bytes(os.urandom(3_000_000))
    for number in range(300):
        (api.root / f"a/{number}").write_bytes(str(number).encode() * 50)
    got = await api.get("/a", form)
    assert (got.status, got.headers["Content-Type"].rpartition("/")[2]) == (
        200,
        {"tar": "x-tar"}.get(form, form),
    )
    assert got.headers["Content-Disposition"] == f"attachment; filename*=UTF-8''a.{form}"
    assert got.headers["Content-Security-Policy"] == "sandbox"
    put = await api.put("/b/c", form, got.body)
    size = sum(each.stat().st_size for each in (api.root / "a").rglob("*") if each.is_file())
    assert (put.status, put.json) == (200, {"written": 302, "bytes": size, "failed": 0, "failures": []})
    assert subprocess.run(["diff", "-r", api.root / "a", api.root / "b/c"], check=False).returncode == 0


async def test_the_top_and_names_for_it(api: Api) -> None:
    (api.root / "f").touch()
    for path, name in (("/", "workspace"), ("/ü b/", "%C3%BC%20b")):
        (api.root / path.strip("/")).mkdir(exist_ok=True)
        got = await api.get(path, "tar")
        assert (got.status, got.headers["Content-Disposition"][-len(name) - 4 :]) == (200, f"{name}.tar")


async def test_only_the_head(api: Api) -> None:
    assert (await api.ask("HEAD", "/", "tar")).status == 200


@pytest.mark.parametrize("form", FORMS)
async def test_what_is_left_out_is_told(api: Api, form: str) -> None:
    os.mkfifo(api.root / "fifo")
    assert names(form, (await api.get("/", form)).body) == [SKIPPED_NAME]


@pytest.mark.parametrize("form", FORMS)
async def test_what_is_excluded_stays_and_an_upload_is_taken_whole(api: Api, form: str) -> None:
    (api.root / "deep").mkdir()
    for name in ("a.log", "deep/b.log", "deep/c", "d e"):
        (api.root / name).touch()
    got = await api.get("/", f"{form}&exclude=*.log&exclude=d+e")
    assert sorted(name.rstrip("/") for name in names(form, got.body)) == ["deep", "deep/c"]
    put = await api.put("/into", f"{form}&exclude=*.log", pack(form, a=b"x"))
    assert (put.status, put.json["code"]) == (400, "invalid-argument")
    assert not (api.root / "into").exists()


async def test_what_cannot_be_asked_for(api: Api) -> None:
    (api.root / "f").touch()
    for path, form, status, code in (
        ("/", "rar", 400, "invalid-argument"),
        ("/", "", 400, "invalid-argument"),
        ("/gone", "tar", 404, "not-found"),
        ("/f", "tar", 400, "invalid-argument"),
    ):
        got = await api.get(path, form)
        assert (got.status, got.json["code"]) == (status, code)
    assert (await api.put("/f", "tar", pack("tar", a=b""))).status == 400
    assert (await api.put("/", "rar", b"")).status == 400


@pytest.mark.parametrize("form", FORMS)
async def test_grants(api: Api, form: str) -> None:
    (api.root / "mine").mkdir()
    (api.root / "mine/out").symlink_to("../yours")
    (api.root / "yours").mkdir()
    data = pack(form, a=b"x")
    for token, method, path, status in (
        *(("reader", "GET", "/yours", 200), ("reader", "PUT", "/yours", 403), ("view", "GET", "/", 403)),
        *(("folder", "GET", "/mine", 200), ("folder", "PUT", "/mine/new", 200)),
        *(("folder", "GET", "/yours", 403), ("folder", "PUT", "/yours", 403), ("folder", "GET", "/", 403)),
        *(("folder", "PUT", "/mine/out", 403), ("folder", "GET", "/mine/out", 403)),
    ):
        sent = data if method == "PUT" else None
        assert (await api.ask(method, path, form, sent, token)).status == status, (token, method, path)
    assert os.listdir(api.root / "yours") == []


@pytest.mark.parametrize("form", FORMS)
async def test_a_damaged_archive(api: Api, form: str) -> None:
    for data in (b"", b"no archive" * 1000, pack(form, a=b"x" * 5000)[:-700]):
        got = await api.put("/into", form, data)
        assert (got.status, got.json["code"]) == (400, "damaged")


async def test_entries_that_fail_are_told(api: Api) -> None:
    data = archive(member("../a"), member("b", b"bytes"), member("pipe", kind=tarfile.FIFOTYPE))
    got = (await api.put("/into", "tar", data)).json
    assert (got["written"], got["bytes"], got["failed"]) == (1, 5, 2)
    assert got["failures"] == [["../a", 'A path with ".."'], ["pipe", "It is a FIFO"]]


@pytest.mark.parametrize(
    "header", ["If-Match: *", 'If-Match: "a"', "If-None-Match: *", "Content-Range: bytes 0-0/3"]
)
async def test_what_could_not_be_kept_to_is_refused(api: Api, header: str) -> None:
    head = f"PUT /v1/files/into?archive=tar HTTP/1.1\r\nContent-Length: 0\r\n{header}"
    reader, writer = await api.raw(head)
    writer.write(b"\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
    writer.close()
    await writer.wait_closed()
    assert list(api.root.iterdir()) == []


async def test_an_upload_without_a_length_is_written_as_it_arrives(api: Api) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield member("first", b"x" * FEED_BYTES)
        # It is there before the rest has been sent.
        await until((api.root / "into/first").exists)
        yield member("second", b"y" * 10) + bytes(1024)

    assert (await api.put("/into", "tar", pieces())).json["written"] == 2


async def test_a_file_that_shrinks_cuts_the_connection(api: Api) -> None:
    (api.root / "d").mkdir()
    with open(api.root / "d/large", "wb") as large:
        large.truncate(1 << 30)
    url = "http://{}:{}/v1/files/d".format(*api.address)
    headers = {"Authorization": "Bearer operator"}
    async with api.session.get(url, params={"archive": "tar"}, headers=headers) as response:
        assert response.status == 200
        await response.content.readexactly(100_000)
        os.truncate(api.root / "d/large", 1 << 20)
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


def descriptors(root: Path) -> int:
    """How many of this process lead into a folder; a file without a name is shown with one."""
    found = 0
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found += os.readlink(f"/proc/self/fd/{number}").startswith(f"{root}/")
    return found


def phases(form: str) -> Iterator[int]:
    """Lengths at which a client leaves: around each boundary of a block, or of a record."""
    size = len(pack(form, a=b"a" * 700, b=b"b" * 10))
    edges = range(0, size, 512) if form == "tar" else range(0, size, 23)
    yield from sorted({at + around for at in edges for around in (-1, 0, 1) if 0 <= at + around < size})


@pytest.mark.parametrize("form", FORMS)
async def test_a_client_that_leaves_while_it_sends(api: Api, form: str) -> None:
    """Whole files stay; nothing unfinished does, no descriptor, and nothing at all of a zip."""
    data = pack(form, a=b"a" * 700, b=b"b" * 10)
    for at in phases(form):
        _, writer = await api.raw(f"PUT /v1/files/into?archive={form} HTTP/1.1")
        writer.write(f"Content-Length: {len(data)}\r\n\r\n".encode() + data[:at])
        await writer.drain()
        await until((api.root / "into").exists)
        writer.close()
        await writer.wait_closed()
        await until(lambda: descriptors(api.root) == 0)
        assert api.below("into") <= ({"a", "b"} if form == "tar" else set())


async def test_a_client_that_leaves_while_it_reads(api: Api) -> None:
    (api.root / "d").mkdir()
    with open(api.root / "d/large", "wb") as large:
        large.truncate(1 << 30)
    for form in FORMS:
        for size in (0, 1, 100, 1_000_000):
            reader, writer = await api.raw(f"GET /v1/files/d?archive={form} HTTP/1.1")
            writer.write(b"\r\n")
            if size:
                await reader.readexactly(size if form == "tar" else min(size, 300))
            writer.close()
            await writer.wait_closed()
            await until(lambda: descriptors(api.root) <= 1)


async def test_an_answer_comes_before_the_rest_of_a_wrong_archive(api: Api) -> None:
    reader, writer = await api.raw("PUT /v1/files/into?archive=tar HTTP/1.1")
    writer.write(b"Content-Length: 1000000000\r\n\r\n" + b"no archive" * 100_000)
    assert (await reader.readline()).startswith(b"HTTP/1.1 400")
    writer.close()
    await writer.wait_closed()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root can mount a disk here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


async def test_a_full_disk(small_disk: Path) -> None:
    """What fits is written, what does not is told, what stands there stays, and the rest goes on."""
    async with site(small_disk) as api:
        (small_disk / "into").mkdir()
        (small_disk / "into/large").write_bytes(b"old")
        data = pack("tar", small=b"x", large=os.urandom(2 << 20), last=b"x")

        async def pieces() -> AsyncIterator[bytes]:
            yield data

        refused = await api.put("/into", "tar", data)
        assert (refused.status, refused.json["code"]) == (507, "disk-full")
        got = await api.put("/into", "tar", pieces())
        assert (got.status, got.json["written"]) == (200, 2)
        assert got.json["failures"] == [["large", "No space left on the workspace's disk"]]
        assert api.below("into") == {"small", "large", "last"}
        assert (small_disk / "into/large").read_bytes() == b"old"
        for data in (os.urandom(2 << 20), bytes(2 << 20)):  # As a whole, and only unpacked.
            full = await api.put("/zip", "zip", pack("zip", f=data))
            assert (full.status, full.json["code"]) == (507, "disk-full")
        assert api.below("zip") == set()
