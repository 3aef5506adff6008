"""Watches of files through a whole server: what a process does is told, and who leaves leaves nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.testing import TestServer
from tests.server.client import Client, connect
from tests.server.conftest import server_in
from tests.server.test_grants import create, granted
from tests.server.test_restart import end_server

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def told(client: Client, path: str, what: str = "created") -> dict[str, Any]:
    """A change of a path, which has come or comes."""
    while True:
        for message in client.seen:
            for change in message.get("changes", []) if message["type"] == "filesChanged" else []:
                if (change["path"], change["what"]) == (path, what):
                    return dict(change)
        await client.next()


async def test_what_a_process_writes_is_told_with_the_version_that_others_see(client: Client) -> None:
    assert (await client.ask("watchFiles", path="/"))["by"] == "inotify"
    await client.run("mkdir -p n/m/o && echo one > n/m/o/f && echo two > n/m/o/f && mv n k", attach=False)
    change = await told(client, "/k/m/o/f")
    shown = (await client.ask("statFile", path="/k/m/o/f"))["file"]
    assert (change["kind"], change["version"]) == ("file", shown["version"])
    await client.ask("removeFile", path="/k", recursive=True)
    await told(client, "/k", "removed")


async def test_a_grant_for_a_folder_watches_it_until_it_is_revoked(
    server: TestServer, client: Client
) -> None:
    folder = server.workspace / "granted"
    folder.mkdir()
    token = await create(server, "watches", "files", paths=["/granted"], readOnly=True)
    async with granted(server, token) as watcher:
        await watcher.ask("watchFiles", path="/granted")
        (server.workspace / "beside").write_text("x")
        (folder / "a").write_text("x")
        await told(watcher, "/granted/a")
        assert "/beside" not in str(watcher.seen)
        os.rename(folder, server.workspace / "elsewhere")
        assert (await watcher.until("filesChanged", watch=1))["ended"]


async def test_a_hundred_clients_that_come_and_go_leave_no_watch(server: TestServer) -> None:
    def watches() -> int:
        folder = Path(f"/proc/{server.server_pid()}/fd")
        found = 0
        for each in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                found += "inotify" in os.readlink(each)
        return found

    for _ in range(10):
        clients = [connect(server) for _ in range(10)]
        opened = [await each.__aenter__() for each in clients]
        await asyncio.gather(*(each.ask("watchFiles", path="/") for each in opened))
        assert watches() == 1
        for number, each in enumerate(opened):
            if number % 2:
                each.vanish()
        for context in clients:
            await context.__aexit__(None, None, None)
    async with asyncio.timeout(20):
        while watches():  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.01)


async def test_a_new_server_is_asked_anew(tmp_path: Path) -> None:
    """Watches are a connection's, and end with it."""
    async with server_in(tmp_path) as server:
        async with connect(server) as client:
            await client.ask("watchFiles")
            await end_server(server, signal.SIGKILL)
        async with connect(server) as client:
            assert (await client.ask("watchFiles"))["watch"] == 1
            (server.workspace / "a").write_text("x")
            await told(client, "/a")
