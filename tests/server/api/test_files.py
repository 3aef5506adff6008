"""The routes of the content of files over real sockets, with a workspace on a real disk. What a hostile
client or process may try is in tests/hostile/test_file_doors.py."""

from __future__ import annotations

import asyncio
import io
import json
import os
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yarl
from aiohttp import web

from mhnos_runtime.files import draft
from mhnos_runtime.files.confine import Workspace
from mhnos_runtime.files.content import WHOLE_BYTES
from mhnos_runtime.server.api.files import FileRoutes
from mhnos_runtime.server.auth.grants import EVERYTHING, Grant, Scope
from mhnos_runtime.server.auth.live import Live
from mhnos_runtime.server.files.work import FileWork
from mhnos_runtime.server.http.call import Call
from tests.server.auth.gates import Setting
from tests.server.http.site import Some, serve

READER = Grant("token:reader", frozenset({Scope.FILES}), read_only=True)
FOLDER = Grant("token:folder", frozenset({Scope.FILES}), paths=("/mine",))
VIEW = Grant("token:view", frozenset({Scope.VIEW}))
LARGE = 3 * WHOLE_BYTES + 7
DESK = "https://desk.example"


@dataclass
class Answer:
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def version(self) -> str:
        return str(self.headers["ETag"]).strip('"')


class Archives:
    """Says what was asked of it."""

    async def download(self, _call: Call, path: str, form: str) -> web.StreamResponse:
        return web.Response(text=f"down {path} {form}")

    async def upload(self, _call: Call, path: str, form: str) -> web.StreamResponse:
        return web.Response(text=f"up {path} {form}")


class Api:
    def __init__(self, root: Path, address: tuple[str, int], session: aiohttp.ClientSession) -> None:
        self.root, self.address, self.session = root, address, session

    async def ask(
        self, method: str, path: str, data: Any = None, token: str = "operator", **headers: str
    ) -> Answer:
        """path: as it goes over the wire. headers: with _ for -."""
        url = yarl.URL("http://{}:{}/v1/files{}".format(*self.address, path), encoded=True)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent["Authorization"] = f"Bearer {token}"
        body = io.BytesIO(data) if isinstance(data, bytes) else data
        async with self.session.request(method, url, headers=sent, data=body) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str, token: str = "operator", **headers: str) -> Answer:
        return await self.ask("GET", path, token=token, **headers)

    async def put(self, path: str, data: Any = b"", token: str = "operator", **headers: str) -> Answer:
        return await self.ask("PUT", path, data, token, **headers)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    live, work = Live(asyncio.get_running_loop()), FileWork()
    root = tmp_path / "workspace"
    root.mkdir()
    with Workspace(root) as workspace:
        rows = FileRoutes(workspace, work, Archives()).rows()
        tokens = Some(EVERYTHING, READER, FOLDER, VIEW)
        async with (
            serve(rows, tokens, live, Setting(allow_origin=(DESK,))) as address,
            aiohttp.ClientSession() as session,
        ):
            yield Api(root, address, session)
        await asyncio.to_thread(work.close)


@pytest.mark.parametrize("size", [0, 5, WHOLE_BYTES, LARGE])
async def test_what_is_written_is_read(api: Api, size: int) -> None:
    data = os.urandom(size)
    made = await api.put("/a/b/c.txt", data)
    assert (made.status, made.headers["Content-Type"]) == (201, "application/json")
    info = made.json["file"]
    assert (info["path"], info["kind"], info["size"], info["mode"]) == ("/a/b/c.txt", "file", size, 0o644)
    assert info["version"] == made.version
    assert (api.root / "a/b/c.txt").read_bytes() == data
    got = await api.get("/a/b/c.txt")
    assert (got.status, got.body, got.version) == (200, data, made.version)
    assert got.headers["Content-Length"] == str(size)
    assert got.headers["Mhnos-Mtime"] == str(info["mtime"])
    assert got.headers["X-Content-Type-Options"] == "nosniff"
    head = await api.ask("HEAD", "/a/b/c.txt")
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", str(size))
    assert head.version == made.version


async def test_a_body_of_unknown_length_is_written(api: Api) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"0123456789" * 5000

    made = await api.put("/a", pieces())
    assert (made.status, made.json["file"]["size"]) == (201, 2_000_000)


async def test_a_large_file_is_made_durable_by_and_by(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """All at once would keep one of the threads for as long as the disk takes for gigabytes."""
    sizes, fdatasync = list[int](), os.fdatasync

    def counted(fd: int) -> None:
        sizes.append(os.fstat(fd).st_size)
        fdatasync(fd)

    monkeypatch.setattr(draft, "SYNC_BYTES", 1 << 20, raising=False)
    monkeypatch.setattr(os, "fdatasync", counted)
    assert (await api.put("/large", b"x" * (5 << 20))).status == 201
    assert len(sizes) >= 2
    assert all(after - before < 2 << 20 for before, after in zip([0, *sizes], [*sizes, 5 << 20], strict=True))


async def test_what_is_replaced_has_another_version_and_keeps_its_mode(api: Api) -> None:
    first = await api.put("/a", b"one", Mhnos_Mode="0750", Mhnos_Mtime="1764590400500")
    assert (first.json["file"]["mode"], first.json["file"]["mtime"]) == (0o750, 1764590400500)
    second = await api.put("/a", b"two")
    assert second.status == 200
    assert second.json["file"]["mode"] == 0o750
    assert len({first.version, second.version, (await api.put("/a", b"two")).version}) == 3
    assert (await api.get("/a")).headers["Mhnos-Mode"] == "0750"
    assert (await api.put("/a", b"", Mhnos_Mode="600")).json["file"]["mode"] == 0o600


async def test_names_are_those_of_the_disk(api: Api) -> None:
    for name in ("a b", "ü", "%41", "a?b", "#", "a\\b", "a;b=c", "...", "~", "-", "\n", "+", "&=", "*"):
        path = "/" + "".join(f"%{byte:02X}" for byte in name.encode())
        assert (await api.put(path, name.encode())).status == 201
        assert (api.root / name).read_bytes() == name.encode()
        assert (await api.get(path)).body == name.encode()


async def test_the_workspace_may_be_named_as_processes_see_it(api: Api) -> None:
    await api.put("/workspace/a", b"x")
    assert (api.root / "a").read_bytes() == b"x"


@pytest.mark.parametrize("size", [1000, LARGE])
async def test_ranges(api: Api, size: int) -> None:
    data = os.urandom(size)
    version = (await api.put("/a", data)).version
    for text, part, told in (
        ("bytes=0-0", data[:1], "bytes 0-0"),
        ("bytes=100-", data[100:], f"bytes 100-{size - 1}"),
        ("bytes=-7", data[-7:], f"bytes {size - 7}-{size - 1}"),
        (f"bytes=0-{size * 2}", data, f"bytes 0-{size - 1}"),
    ):
        got = await api.get("/a", Range=text)
        assert (got.status, got.body) == (206, part)
        assert got.headers["Content-Range"] == f"{told}/{size}"
        assert (await api.get("/a", Range=text, If_Range=f'"{version}"')).status == 206
        whole = await api.get("/a", Range=text, If_Range='"another"')
        assert (whole.status, whole.body) == (200, data)
    assert (await api.get("/a", Range="bytes=0-1,5-6")).status == 200
    behind = await api.get("/a", Range=f"bytes={size}-")
    assert (behind.status, behind.json["code"]) == (416, "no-such-range")
    assert behind.headers["Content-Range"] == f"bytes */{size}"
    head = await api.ask("HEAD", "/a", Range="bytes=1-2")
    assert (head.status, head.headers["Content-Length"]) == (206, "2")


async def test_conditions_of_reading(api: Api) -> None:
    version = (await api.put("/a", b"x")).version
    same = await api.get("/a", If_None_Match=f'"{version}"')
    assert (same.status, same.body, same.version) == (304, b"", version)
    other = await api.get("/a", If_Match='"another"')
    assert (other.status, other.json["code"]) == (412, "changed")
    assert (await api.get("/a", If_Match=f'"{version}"')).body == b"x"
    # What is not there is not found, whatever was expected.
    assert (await api.get("/b", If_Match="*")).status == 404


async def test_nobodys_edit_is_overwritten_unseen(api: Api) -> None:
    first = await api.put("/a", b"one", If_None_Match="*")
    assert first.status == 201
    again = await api.put("/a", b"two", If_None_Match="*")
    assert (again.status, again.json["code"]) == (412, "already-exists")
    second = await api.put("/a", b"two", If_Match=f'"{first.version}"')
    assert second.status == 200
    late = await api.put("/a", b"three", If_Match=f'"{first.version}"')
    assert (late.status, late.json["code"]) == (412, "changed")
    (api.root / "a").write_bytes(b"by a process")
    late = await api.put("/a", b"three", If_Match=f'"{second.version}"')
    assert late.status == 412
    assert (api.root / "a").read_bytes() == b"by a process"
    assert (await api.put("/b", b"", If_Match="*")).status == 412
    assert not (api.root / "b").exists()


async def test_a_link_stays_and_what_it_leads_to_is_replaced(api: Api) -> None:
    (api.root / "dir").mkdir()
    (api.root / "dir/target").write_bytes(b"old")
    (api.root / "link").symlink_to("dir/target")
    assert (await api.put("/link", b"new")).status == 200
    assert (api.root / "link").is_symlink()
    assert (api.root / "dir/target").read_bytes() == b"new"


async def test_what_is_no_file_is_told_with_what_to_do(api: Api) -> None:
    (api.root / "dir").mkdir()
    for answer in (await api.get("/dir"), await api.get("/dir/"), await api.get("/"), await api.put("/dir/")):
        assert (answer.status, answer.json["code"]) == (400, "is-a-directory")
        assert "archive=tar" in answer.json["hint"]
    assert (await api.put("/dir", b"x")).status == 400
    assert (await api.get("/none")).status == 404
    assert stat.S_ISDIR((api.root / "dir").stat().st_mode)


async def test_nobody_makes_a_file_that_is_never_shown(api: Api) -> None:
    for path in ("/.mhnos-push-mine", "/.mhnos-push-folder/a"):
        answer = await api.put(path, b"x")
        assert (answer.status, answer.json["code"]) == (400, "invalid-argument")
    assert list(api.root.iterdir()) == []


async def test_wrong_headers_are_told(api: Api) -> None:
    for headers in (
        {"Mhnos_Mode": "4755"},
        {"Mhnos_Mode": "rwx"},
        {"Mhnos_Mtime": "yesterday"},
        {"If_None_Match": '"a"'},
        {"If_Unmodified_Since": "Mon, 01 Dec 2025 12:00:00 GMT"},
        {"Content_Range": "bytes 0-0/3"},
    ):
        assert (await api.put("/a", b"x", **headers)).status == 400
    encoded = await api.put("/a", b"x", Content_Encoding="gzip")
    assert (encoded.status, encoded.json["code"]) == (415, "unsupported-encoding")
    assert list(api.root.iterdir()) == []


async def test_a_grant_reads_and_writes_what_it_is_for(api: Api) -> None:
    await api.put("/mine/a", b"mine")
    await api.put("/other", b"other")
    assert (await api.get("/mine/a", "reader")).body == b"mine"
    refused = await api.put("/mine/a", b"x", "reader")
    assert (refused.status, refused.json["code"]) == (403, "forbidden")
    assert (await api.get("/mine/a", "folder")).body == b"mine"
    assert (await api.put("/mine/b", b"x", "folder")).status == 201
    for path in ("/other", "/", "/mine/%2e%2e/other"):
        assert (await api.get(path, "folder")).status in (400, 403, 404)
        assert (await api.put(path, b"x", "folder")).status in (400, 403, 404)
    for token in ("view", "wrong"):
        assert (await api.get("/mine/a", token)).status in (401, 403)
        assert (await api.put("/mine/a", b"x", token)).status in (401, 403)
    assert (api.root / "other").read_bytes() == b"other"


async def test_pages_may_read_what_they_are_sent(api: Api) -> None:
    await api.put("/a", b"x")
    got = await api.get("/a", Origin=DESK)
    assert got.headers["Access-Control-Allow-Origin"] == DESK
    assert {"ETag", "Content-Range", "Mhnos-Mode"} <= set(
        got.headers["Access-Control-Expose-Headers"].split(", ")
    )
    assert (await api.get("/a")).headers["Vary"] == "Origin"


async def test_archives_are_somebody_elses(api: Api) -> None:
    assert (await api.get("/dir?archive=tar")).body == b"down /dir tar"
    assert (await api.put("/dir?archive=zip", b"")).body == b"up /dir zip"


async def test_a_full_disk_is_told_before_anything_is_sent(api: Api, tmp_path: Path) -> None:
    with Workspace(api.root, min_free=1 << 62) as workspace:
        work = FileWork()
        rows = FileRoutes(workspace, work).rows()
        live = Live(asyncio.get_running_loop())
        async with serve(rows, Some(EVERYTHING), live) as address:
            full = Api(api.root, address, api.session)
            answer = await full.put("/a", b"x")
            assert (answer.status, answer.json["code"]) == (507, "disk-full")
            assert (await full.get("/a?archive=tar")).status == 400
        await asyncio.to_thread(work.close)
    assert list(api.root.iterdir()) == []
