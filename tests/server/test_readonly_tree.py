"""A part of the workspace that nobody may write to: each way in says so and changes nothing, and each way to
look goes on."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.testing import TestServer
from tests.server.client import Client
from tests.server.tus import Answer, Tus

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def tree(server: TestServer) -> Iterator[Path]:
    """`tree`, with `d/old` in it: a file system that is mounted to be read, or for others than root folders
    without permission to write."""
    top = server.workspace / "tree"
    top.mkdir()
    mount = ["mount", "-t", "tmpfs", "none", str(top)]
    mounted = os.geteuid() == 0 and not subprocess.run(mount, check=False, capture_output=True).returncode
    if os.geteuid() == 0 and not mounted:
        pytest.skip("root writes everywhere, and may not mount here")
    (top / "d").mkdir()
    (top / "d/old").write_bytes(b"old")
    (top / "d/old").chmod(0o444)
    for folder in (top / "d", top):
        folder.chmod(0o555)
    if mounted:
        subprocess.run(["mount", "-o", "remount,ro", str(top)], check=True)
    (server.workspace / "outside").write_bytes(b"x")
    try:
        yield top
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(top)], check=True)
        else:
            for folder in (top, top / "d"):
                folder.chmod(0o755)


@pytest.fixture(autouse=True)
def unchanged(tree: Path) -> Iterator[None]:
    yield
    assert sorted(str(path.relative_to(tree)) for path in tree.rglob("*")) == ["d", "d/old"]
    assert (tree / "d/old").read_bytes() == b"old"


def archive(form: str) -> bytes:
    """With one file, `new`."""
    data = io.BytesIO()
    if form == "zip":
        with zipfile.ZipFile(data, "w") as written:
            written.writestr("new", b"x")
    else:
        with tarfile.open(fileobj=data, mode="w") as packed:
            packed.addfile(member := tarfile.TarInfo("new"), io.BytesIO(b"x" * member.size))
    return data.getvalue()


async def put(server: TestServer, target: str, body: bytes) -> Answer:
    tus = Tus(server)
    return await tus.send(tus.request("PUT", f"/v1/files/{target}", {"Content-Length": str(len(body))}, body))


@pytest.mark.parametrize("target", ["tree/new", "tree/d/old", "tree/new/deep/file"])
async def test_a_file_is_refused(server: TestServer, target: str) -> None:
    answer = await put(server, target, b"x")
    assert (answer.status, json.loads(answer.body)["code"]) == (403, "refused")


@pytest.mark.parametrize("path", ["/tree/new", "/tree/d/old"])
async def test_an_upload_is_refused_before_it_begins(server: TestServer, path: str) -> None:
    answer = await Tus(server).create(1 << 30, path=path)
    assert (answer.status, json.loads(answer.body)["code"]) == (403, "refused")


async def test_what_is_in_an_archive_is_told_not_to_be_written(server: TestServer) -> None:
    answer = await put(server, "tree?archive=tar", archive("tar"))
    told = json.loads(answer.body)
    assert (answer.status, told["written"], told["failed"]) == (200, 0, 1)
    assert [path for path, _ in told["failures"]] == ["new"]


@pytest.mark.parametrize("target", ["tree?archive=zip", "tree/made?archive=zip", "tree/made?archive=tar"])
async def test_an_archive_that_finds_no_place_is_refused(server: TestServer, target: str) -> None:
    answer = await put(server, target, archive(target[-3:]))
    assert (answer.status, json.loads(answer.body)["code"]) == (403, "refused")


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("makeDirectory", {"path": "/tree/new"}),
        ("moveFile", {"from": "/tree/d/old", "to": "/tree/new"}),
        ("moveFile", {"from": "/tree/d", "to": "/tree/e"}),
        ("copyFile", {"from": "/outside", "to": "/tree/new"}),
        ("copyFile", {"from": "/outside", "to": "/tree/d/old", "replace": True}),
        ("removeFile", {"path": "/tree/d/old"}),
        ("removeFile", {"path": "/tree/d", "recursive": True, "outright": True}),
    ],
    ids=str,
)
async def test_a_request_is_refused(client: Client, kind: str, fields: dict[str, Any]) -> None:
    assert (await client.ask(kind, **fields))["code"] == "refused"


async def test_it_is_shown_as_any_other(server: TestServer, client: Client) -> None:
    assert [file["path"] for file in (await client.ask("listFiles", path="/tree"))["files"]] == ["/tree/d"]
    assert (await client.ask("statFile", path="/tree/d/old", sha256=True))["file"]["size"] == 3
    found = await client.ask("searchFiles", path="/tree", pattern="old")
    assert [match["path"] for match in found["matches"]] == ["/tree/d/old"]
    assert (await client.ask("watchFiles", path="/tree"))["type"] == "filesWatched"
    copied = await client.ask("copyFile", **{"from": "/tree/d", "to": "/copied"})
    assert (copied["copied"], (server.workspace / "copied/old").read_bytes()) == (2, b"old")
    tus = Tus(server)
    assert (await tus.send(tus.request("GET", "/v1/files/tree/d/old"))).body == b"old"
