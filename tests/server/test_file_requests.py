"""Requests about files against a real server: what they answer, beside each other, and to who leaves."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.testing import TestServer
from tests.server.client import Client, connect, eventually
from tests.server.conftest import server_in

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def folder(server: TestServer, request: pytest.FixtureRequest) -> Path:
    """Of one test, in the workspace."""
    made = server.workspace / f"{abs(hash(request.node.name))}"
    made.mkdir()
    return made


async def test_a_life_of_a_file(client: Client, folder: Path) -> None:
    top = f"/{folder.name}"
    made = await client.ask("makeDirectory", path=f"{top}/a/b", parents=True)
    assert (made["type"], made["file"]["kind"], made["file"]["path"]) == (
        "directoryMade",
        "directory",
        f"{top}/a/b",
    )
    (folder / "a/f").write_bytes(b"content")
    stat = await client.ask("statFile", path=f"{top}/a/f", sha256=True)
    assert stat["sha256"] == hashlib.sha256(b"content").hexdigest()
    version = stat["file"]["version"]
    moved = await client.ask("moveFile", **{"from": f"{top}/a/f", "to": f"{top}/g", "version": version})
    assert (moved["type"], moved["file"]["size"], moved.get("trash")) == ("fileMoved", 7, None)
    assert moved["file"]["version"] != version
    copied = await client.ask("copyFile", **{"from": f"{top}/g", "to": f"{top}/h"})
    assert (copied["copied"], copied["bytes"]) == (1, 7)
    over = await client.ask("copyFile", **{"from": f"{top}/a", "to": f"{top}/h", "replace": True})
    removed = await client.ask("removeFile", path=top, recursive=True)
    assert removed["path"] == top
    assert not folder.exists()
    listed = await client.ask("listTrash")
    assert [item["id"] for item in listed["items"][:2]] == [removed["trash"], over["trash"]]
    assert (await client.ask("restoreFile", item=removed["trash"]))["file"]["path"] == top
    listed = await client.ask("listFiles", path=top)
    assert [entry["path"] for entry in listed["files"]] == [f"{top}/a", f"{top}/g", f"{top}/h"]
    restored = await client.ask("restoreFile", item=over["trash"], to=f"{top}/old")
    assert (restored["file"]["kind"], restored["file"]["size"]) == ("file", 7)
    gone = await client.ask("removeFile", path=f"{top}/old", outright=True)
    assert gone.get("trash") is None


async def test_pages_go_on_behind_names_that_are_not_utf8(client: Client, folder: Path) -> None:
    names = sorted([b"a", b"\xff" * 255, b"\xff\xfe", b"\xc3\xa9", b"z", b"\xf0\x9f\x98\x80"])
    for name in names:
        os.close(os.open(os.fsencode(folder) + b"/" + name, os.O_CREAT))
    found: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        page = await client.ask("listFiles", path=f"/{folder.name}", max=1, **after)
        found += page["files"]
        if page.get("next") is None:
            break
        after = {"after": page["next"]}
    assert [entry["path"] for entry in found] == [
        f"/{folder.name}/" + name.decode(errors="backslashreplace") for name in names
    ]
    assert sum(entry.get("opaque", False) for entry in found) == 2
    assert (await client.ask("listFiles", path="/", after="\0\u2603"))["code"] == "invalid-argument"


@pytest.mark.parametrize(
    ("kind", "fields", "code"),
    [
        ("listFiles", {"path": "/gone"}, "not-found"),
        ("listFiles", {"path": "/../etc"}, "outside-workspace"),
        ("listFiles", {"path": "/\0"}, "invalid-argument"),
        ("listFiles", {"path": "/", "max": 0}, "invalid-argument"),
        ("statFile", {"path": "/" + "x" * 300}, "invalid-argument"),
        ("moveFile", {"from": "/", "to": "/x"}, "invalid-argument"),
        ("moveFile", {"from": "/x", "to": "/y", "version": "1"}, "invalid-argument"),
        ("removeFile", {"path": "/"}, "invalid-argument"),
        ("removeFile", {"path": "/gone", "version": "0" * 24}, "not-found"),
        ("restoreFile", {"item": "0" * 16}, "not-found"),
        ("restoreFile", {"item": "../../../../.."}, "invalid-argument"),
        ("emptyTrash", {"items": ["0" * 16]}, "not-found"),
        ("listTrash", {"before": "x"}, "invalid-argument"),
    ],
    ids=str,
)
async def test_what_is_wrong_is_said(client: Client, kind: str, fields: dict[str, Any], code: str) -> None:
    answered = await client.ask(kind, **fields)
    assert (answered["type"], answered["code"]) == ("error", code)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("makeDirectory", {"path": "/.mhnos-push-1"}),
        ("makeDirectory", {"path": "/.mhnos-push-1/a", "parents": True}),
        ("moveFile", {"from": "/shown", "to": "/.mhnos-push-1"}),
        ("copyFile", {"from": "/shown", "to": "/.mhnos-push-1"}),
        ("restoreFile", {"to": "/.mhnos-push-1"}),
        ("restoreFile", {"to": "/.mhnos-push-1/a"}),
    ],
    ids=str,
)
async def test_nothing_goes_where_it_is_never_shown(
    server: TestServer, client: Client, kind: str, fields: dict[str, Any]
) -> None:
    (server.workspace / "shown").write_bytes(b"x")
    if kind == "restoreFile":
        fields = {**fields, "item": (await client.ask("removeFile", path="/shown"))["trash"]}
    assert (await client.ask(kind, **fields))["code"] == "invalid-argument"
    assert not list(server.workspace.glob(".mhnos-push-*"))


async def test_a_page_of_twenty_thousand_is_quick(client: Client, folder: Path) -> None:
    """It is to take 50 ms; twenty times as much is a mistake also on a busy machine."""
    fd = os.open(folder, os.O_RDONLY)
    for number in range(20_000):
        os.mknod(f"{number:05}", dir_fd=fd)
    os.close(fd)
    start = time.perf_counter()
    page = await client.ask("listFiles", path=f"/{folder.name}")
    took = time.perf_counter() - start
    print(f"first page of 20,000 entries: {took * 1000:.1f} ms")
    assert (len(page["files"]), page["next"]) == (1000, "00999")
    assert took < 1.0
    await client.ask("removeFile", path=f"/{folder.name}", recursive=True, outright=True)


async def test_other_requests_do_not_wait_for_a_long_one(client: Client, other: Client, folder: Path) -> None:
    with open(folder / "large", "wb") as file:
        file.truncate(8 << 30)
    await client.send("statFile", path=f"/{folder.name}/large", sha256=True, id="long")
    for _ in range(20):
        assert (await other.ask("statFile", path="/"))["type"] == "fileStat"
    assert not any(message.get("id") == "long" for message in client.seen)
    client.vanish()


async def test_a_client_that_leaves_takes_its_copy_along(server: TestServer, folder: Path) -> None:
    source = folder / "source"
    source.mkdir()
    for number in range(3000):
        (source / str(number)).write_bytes(b"x" * 100)

    async def nothing_is_left() -> bool:
        return not [name for name in os.listdir(folder) if name.startswith(".mhnos")]

    for turn in range(5):
        async with connect(server) as client:
            await client.send("copyFile", **{"from": f"/{folder.name}/source", "to": f"/{folder.name}/copy"})
            await asyncio.sleep(0.02 * turn)  # another phase each time; none of them may leave a half
            client.vanish()
        await eventually(nothing_is_left)
        if (folder / "copy").exists():
            assert len(os.listdir(folder / "copy")) == 3000
            (folder / "copy").rename(folder / f"whole{turn}")


async def test_too_many_at_once_are_refused(server: TestServer, folder: Path) -> None:
    with open(folder / "large", "wb") as file:
        file.truncate(64 << 30)
    async with connect(server) as client:
        for number in range(70):
            await client.send("statFile", path=f"/{folder.name}/large", sha256=True, id=f"many-{number}")
        async with connect(server) as second:
            assert (await second.ask("statFile", path="/"))["type"] == "fileStat"
        # Answers come in order, and the first have not come: what is refused waits behind them.
        client.vanish()
    async with connect(server) as third:
        assert (await third.ask("statFile", path="/"))["type"] == "fileStat"


async def test_a_restart_finds_the_trash_again(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server, connect(server) as client:
        (server.workspace / "f").write_text("f")
        item = (await client.ask("removeFile", path="/f"))["trash"]
    damaged = tmp_path / "state/trash/0123456789abcdef"
    damaged.mkdir()
    (damaged / "content").touch()
    (damaged / "record.json").write_text("{")
    async with server_in(tmp_path) as server, connect(server) as client:
        assert [each["id"] for each in (await client.ask("listTrash"))["items"]] == [item]
        assert (await client.ask("restoreFile", item=item))["file"]["path"] == "/f"
        assert (server.workspace / "f").read_text() == "f"


async def test_a_trash_that_keeps_nothing(tmp_path: Path) -> None:
    async with server_in(tmp_path, "--trash-seconds", "0") as server, connect(server) as client:
        (server.workspace / "f").touch()
        assert (await client.ask("removeFile", path="/f")).get("trash") is None
        assert (await client.ask("listTrash"))["items"] == []
        assert not (tmp_path / "state/trash").exists()
