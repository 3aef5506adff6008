"""Requests to list, look at, make, move, copy and remove: from messages to what is done, and answers."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.server.auth.grants import EVERYTHING, Grant
from mhnos_runtime.server.connections.requests.tree import _cursor, _name
from mhnos_runtime.server.files import work as filework
from tests.server.connections.scene import Client, Scene


async def ask(client: Client, kind: str, **fields: Any) -> dict[str, Any]:
    """The answer, whatever its type."""
    client.send(kind, id=f"{kind} {len(client.seen())}", **fields)
    await client.answered()
    return next(each for each in reversed(client.seen()) if each["type"] != "pong")


async def test_each_request_does_what_it_says(scene: Scene) -> None:
    client = await scene.client()
    (scene.files / "f").write_text("f")
    listed = await ask(client, "listFiles", path="/", max=1)
    assert ([each["path"] for each in listed["files"]], listed.get("next")) == (["/f"], None)
    stat = await ask(client, "statFile", path="f", sha256=True)
    assert len(stat["sha256"]) == 64
    made = await ask(client, "makeDirectory", path="/d")
    assert made["file"]["kind"] == "directory"
    copied = await ask(client, "copyFile", **{"from": "/f", "to": "/d/g"})
    assert (copied["copied"], copied["bytes"], copied["file"]["path"]) == (1, 1, "/d/g")
    moved = await ask(client, "moveFile", **{"from": "/f", "to": "/d/g", "replace": True})
    assert moved["type"] == "fileMoved"
    assert (await ask(client, "restoreFile", item=moved["trash"], to="/h"))["file"]["path"] == "/h"
    removed = await ask(client, "removeFile", path="/d", recursive=True)
    assert removed["path"] == "/d"
    [item] = (await ask(client, "listTrash"))["items"]
    assert (item["id"], item["path"], item["kind"]) == (removed["trash"], "/d", "directory")
    assert (await ask(client, "emptyTrash"))["items"] == 1
    assert os.listdir(scene.files) == ["h"]


@pytest.mark.parametrize(
    ("kind", "fields", "code"),
    [
        ("listFiles", {"path": "/gone"}, "not-found"),
        ("statFile", {"path": "/.."}, "outside-workspace"),
        ("makeDirectory", {"path": "/a/b"}, "not-found"),
        ("moveFile", {"from": "/gone", "to": "/x"}, "not-found"),
        ("moveFile", {"from": "/gone", "to": "/x", "version": "x" * 24}, "invalid-argument"),
        ("copyFile", {"from": "/gone", "to": "/x"}, "not-found"),
        ("removeFile", {"path": "/"}, "invalid-argument"),
        ("restoreFile", {"item": "0" * 16}, "not-found"),
        ("emptyTrash", {"items": ["0" * 16]}, "not-found"),
    ],
    ids=str,
)
async def test_what_cannot_be_done_is_an_error(
    scene: Scene, kind: str, fields: dict[str, Any], code: str
) -> None:
    answered = await ask(await scene.client(), kind, **fields)
    assert (answered["type"], answered["code"]) == ("error", code)
    assert str(scene.files) not in answered["error"]


TRICKS = [
    "/..",
    "..",
    "/a/../../etc/passwd",
    "/workspace/../..",
    "/out",
    "/out/canary",
    "/absolute",
    "/absolute/passwd",
    "/loop",
    "/loop/x",
    "/up/canary",
    "/file/x",
    "/file/..",
    "/nul\0",
    "/" + "x" * 256,
    "/" + "x/" * 3000,
    "/fifo/x",
    "/dev/null",
    "/proc/self/fd/1",
    "/%2e%2e/etc",
    "/\u2025/etc",
    "/..\\etc",
]
REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("listFiles", "path", {}),
    ("statFile", "path", {"sha256": True}),
    ("makeDirectory", "path", {}),
    ("makeDirectory", "path", {"parents": True}),
    ("moveFile", "from", {"to": "/to"}),
    ("moveFile", "to", {"from": "/file", "replace": True}),
    ("copyFile", "from", {"to": "/to"}),
    ("copyFile", "to", {"from": "/file", "replace": True}),
    ("removeFile", "path", {"recursive": True}),
    ("removeFile", "path", {"recursive": True, "outright": True}),
    ("searchFiles", "path", {"pattern": "canary"}),
    ("searchFiles", "path", {"name": "*", "ignored": True}),
    ("watchFiles", "path", {}),
]


@pytest.mark.parametrize("grant", [EVERYTHING, replace(EVERYTHING, paths=("/",))], ids=["whole", "limited"])
@pytest.mark.parametrize(("kind", "field", "more"), REQUESTS, ids=str)
async def test_no_trick_of_a_path_leads_out(
    scene: Scene, kind: str, field: str, more: dict[str, Any], grant: Grant
) -> None:
    """What is outside stays as it is, and is in no answer."""
    outside = scene.files.parent / "outside"
    outside.mkdir()
    (outside / "canary").write_text("canary of 29 bytes is outside")
    client = await scene.client(grant=grant)
    for trick in TRICKS:
        lay_out(scene.files, outside)
        answered = await ask(client, kind, **{field: trick, **more})
        told = json.dumps(answered)
        assert "canary of" not in told
        assert '"size": 29' not in told
        assert str(scene.files) not in told
        assert (outside / "canary").read_text() == "canary of 29 bytes is outside"
        assert os.listdir(outside) == ["canary"]


def lay_out(root: Path, outside: Path) -> None:
    """Anew: a trick may have moved some of it."""
    for path in root.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    (root / "out").symlink_to("../outside")
    (root / "absolute").symlink_to(outside)
    (root / "loop").symlink_to("loop")
    (root / "up").symlink_to("a/../../outside")
    (root / "a").mkdir()
    (root / "file").touch()
    os.mkfifo(root / "fifo")


async def test_a_grant_reaches_its_folders(scene: Scene) -> None:
    (scene.files / "mine").mkdir()
    limited = await scene.client(grant=replace(EVERYTHING, paths=("/mine",)))
    assert (await ask(limited, "listFiles", path="/mine"))["files"] == []
    assert (await ask(limited, "listFiles", path="/"))["code"] == "forbidden"
    reader = await scene.client(grant=replace(EVERYTHING, read_only=True))
    assert (await ask(reader, "removeFile", path="/mine"))["code"] == "forbidden"
    assert (await ask(reader, "statFile", path="/mine"))["type"] == "fileStat"


async def test_the_next_page_goes_on_behind_what_next_was(scene: Scene) -> None:
    client = await scene.client()
    for name in (b"a", b"\xff", b"\xffz"):
        os.close(os.open(os.fsencode(scene.files) + b"/" + name, os.O_CREAT))
    seen: list[str] = []
    after: dict[str, Any] = {}
    for _ in range(3):
        page = await ask(client, "listFiles", path="/", max=1, **after)
        seen += [each["path"] for each in page["files"]]
        after = {"after": page.get("next")}
    assert seen == ["/a", "/\\xff", "/\\xffz"]
    assert after["after"] is None
    wrong = await ask(client, "listFiles", path="/", after="\0☃")
    assert wrong["code"] == "invalid-argument"


@pytest.mark.parametrize("name", [b"a", b"\xff", b"\xc3\xa9", b"\xff" * 255, b"\\xff", "☃".encode()])
def test_every_name_is_a_cursor(name: bytes) -> None:
    assert _name(_cursor(name)) == name
    _cursor(name).encode()
    assert len(_cursor(name)) <= 256


async def test_one_client_has_so_many_under_way(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filework, "MAX_JOBS", 0)
    assert (await ask(await scene.client(), "statFile", path="/"))["code"] == "limit-reached"
