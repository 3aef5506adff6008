"""Files of the workspace, by the client and a real server: what goes there comes back, over connections that
are cut and servers that are killed."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mhnos_runtime.client import Conflict, RequestFailed, Runtime, connect
from mhnos_runtime.client.contents import Contents
from mhnos_runtime.client.discovery import Target
from mhnos_runtime.testing import TestServer
from mhnos_runtime.wire import messages as m
from tests.client.cutting import CuttingProxy
from tests.client.test_tar_stream import make_tree, tree

LARGE_BYTES = 30_000_000


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[TestServer]:
    async with TestServer(tmp_path / "server") as serving:
        yield serving


@pytest.fixture
async def runtime(server: TestServer) -> AsyncIterator[Runtime]:
    async with connect(server.url, server.token) as connected:
        yield connected


def target(server: TestServer) -> Target:
    return Target(server.url, server.token, "a test")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.parametrize("path", ["/a", "b/ü %2e?#&;=+ \n.txt", "/workspace/c"])
@pytest.mark.parametrize("content", [b"", b"x", bytes(300_000)])
async def test_content_there_and_back(
    server: TestServer, runtime: Runtime, path: str, content: bytes
) -> None:
    made = await runtime.files.write(path, content, absent=True, mode=0o640)
    assert (made.kind, made.size, made.mode) == ("file", len(content), 0o640)
    assert await runtime.files.read(path, version=made.version) == content
    with pytest.raises(Conflict) as caught:
        await runtime.files.write(path, b"", absent=True)
    assert caught.value.code == "already-exists"
    again = await runtime.files.write(path, b"new", version=made.version)
    assert again.version != made.version
    with pytest.raises(Conflict) as caught:
        await runtime.files.write(path, b"newer", version=made.version)
    assert caught.value.code == "changed"
    assert await runtime.files.read_text(path) == "new"
    pieces = [piece async for piece in runtime.files.open(path, start=1)]
    assert b"".join(pieces) == b"ew"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/none", "not-found"),
        ("/", "is-a-directory"),
        ("/a/..", "is-a-directory"),
        ("../x", "outside-workspace"),
    ],
)
async def test_what_is_no_file(runtime: Runtime, path: str, code: str) -> None:
    with pytest.raises(RequestFailed) as caught:
        await runtime.files.read(path)
    assert caught.value.code == code


async def test_a_large_file_over_cuts_and_killed_servers(server: TestServer, tmp_path: Path) -> None:
    here, back = tmp_path / "here", tmp_path / "back"
    here.write_bytes(os.urandom(LARGE_BYTES))
    here.chmod(0o750)
    kills = [5_000_000, 20_000_000]

    def kill(position: int) -> None:
        if kills and position > kills[0]:
            kills.pop(0)
            os.kill(server.server_pid(), signal.SIGKILL)

    with CuttingProxy(target(server), [3_000_000] * 30) as proxy:
        async with connect(server.url, server.token) as runtime:
            runtime.files._target = proxy.target
            sent = await runtime.files.upload(here, "/d/large", progress=kill)
            kills = [10_000_000]
            taken = await runtime.files.download("/d/large", back, progress=kill)
            told = await runtime.files.stat("/d/large", sha256=True)
        assert proxy.cuts >= 10
    assert sent == taken == told.file
    assert told.sha256 == sha256(here) == sha256(back) == sha256(server.workspace / "d" / "large")
    assert back.stat().st_mode == here.stat().st_mode
    assert int(back.stat().st_mtime * 1000) == int(here.stat().st_mtime * 1000)
    assert [path.name for path in (server.workspace / "d").iterdir()] == ["large"]


async def test_an_empty_file_is_uploaded(runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    made = await runtime.files.upload(tmp_path / "empty", "/empty", absent=True)
    assert made.size == 0
    with pytest.raises(Conflict):
        await runtime.files.upload(tmp_path / "empty", "/empty", absent=True)
    again = await runtime.files.upload(tmp_path / "empty", "/empty", version=made.version)
    assert again.version != made.version


async def test_an_upload_that_another_one_overtakes(server: TestServer, tmp_path: Path) -> None:
    (tmp_path / "here").write_bytes(bytes(2_000_000))

    def overtake(contents: Contents) -> m.FileInfo:
        old = contents.write("/a", [b"old"])

        def write(position: int) -> None:
            if position > 1_000_000:
                with Contents(target(server)) as others:
                    others.write("/a", [b"theirs"])

        with (tmp_path / "here").open("rb") as file:
            return contents.upload("/a", file, size=2_000_000, version=old.version, progress=write)

    async with connect(server.url, server.token) as runtime:
        with pytest.raises(Conflict):
            await runtime.files.run(overtake)
        assert await runtime.files.read("/a") == b"theirs"


async def test_a_directory_there_and_back(server: TestServer, runtime: Runtime, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    make_tree(here)
    sent = await runtime.files.upload_directory(here, "/d")
    os.mkfifo(server.workspace / "d" / "fifo")
    taken = await runtime.files.download_directory("/d", tmp_path / "back")
    assert tree(tmp_path / "back") == tree(here)
    assert (sent.files, sent.bytes, sent.skipped) == (taken.files, taken.bytes, [])
    assert [path for path, _ in taken.skipped] == ["fifo"]


async def test_a_workspace_of_any_size_is_pulled_and_pushed(server: TestServer, runtime: Runtime) -> None:
    """Messages carry 32 MiB, and no file of more than that."""
    files = {"/d": None, "/d/large": os.urandom(40_000_000), "/d/small": b"\xff", "/e": b""}
    done = await runtime.push(files)
    assert (done.synced, done.failed) == (4, 0)
    (server.workspace / "link").symlink_to("d/small")
    assert await runtime.pull() == {**files, "/link": b"\xff"}
    assert (await runtime.push({"/e/below": bytes(9_000_000)})).errors[0].path == "/e/below"


async def test_everything_else_is_asked(server: TestServer, runtime: Runtime) -> None:
    files = runtime.files
    await files.make_directory("/src/deep", parents=True)
    for number in range(5):
        await files.write(f"/src/{number}.py", f"number = {number}\n")
    listed = [file async for file in files.list("/src")]
    assert [file.path for file in listed] == [*(f"/src/{number}.py" for number in range(5)), "/src/deep"]
    assert (await files.stat("/src/1.py")).file == listed[1]
    moved = await files.move("/src/1.py", "/src/deep/one.py", version=listed[1].version)
    assert moved.file.path == "/src/deep/one.py"
    assert (await files.copy("/src/deep", "/src/copy")).copied == 2
    with pytest.raises(RequestFailed):
        await files.remove("/src/copy")
    removed = await files.remove("/src/copy", recursive=True)
    assert [item.id async for item in files.trash()] == [removed.trash]
    assert removed.trash is not None
    assert (await files.restore(removed.trash, "/back")).kind == "directory"
    found = await files.search("/", name="*.py", pattern="number = [12]")
    assert {match.path for match in found.matches} == {"/src/2.py", "/src/deep/one.py", "/back/one.py"}
    await files.remove("/back/one.py")
    assert await files.empty_trash() == 1
    assert [item async for item in files.trash()] == []


async def test_a_watch_goes_on_over_a_killed_server(server: TestServer, runtime: Runtime) -> None:
    async with runtime.files.watch("/") as changes:
        await runtime.files.write("/a", b"x")
        assert await _told(changes, "/a")
        os.kill(server.server_pid(), signal.SIGKILL)
        while not (await asyncio.wait_for(anext(changes), 30)).rescan:
            pass
        await runtime.files.write("/b", b"x")
        assert await _told(changes, "/b")


async def _told(changes: AsyncIterator[m.FilesChanged], path: str) -> bool:
    while True:
        event = await asyncio.wait_for(anext(changes), 30)
        if path in [change.path for change in event.changes]:
            return True
