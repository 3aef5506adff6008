"""Grants for reading only, and for some folders, through every request about files."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from mhnos_runtime.server.auth.grants import Scope
from mhnos_runtime.testing import TestServer
from tests.server.client import Client
from tests.server.test_grants import FIELDS, KINDS, create, granted

pytestmark = pytest.mark.asyncio(loop_scope="module")

WRITES = [kind for kind, row in KINDS.items() if row.writes]


@pytest.fixture(autouse=True)
def two_folders(server: TestServer) -> Path:
    """`mine` is what a grant is for."""
    for name in ("mine", "others"):
        (server.workspace / name).mkdir(exist_ok=True)
        (server.workspace / name / "file").write_text(name)
    return server.workspace


@pytest_asyncio.fixture(loop_scope="module")
async def limited(server: TestServer, request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    token = await create(server, f"limited {abs(hash(request.node.name))}", "files", paths=["/mine"])
    async with granted(server, token) as client:
        yield client


async def test_what_changes_files_is_not_for_those_who_read(server: TestServer) -> None:
    assert {"makeDirectory", "moveFile", "copyFile", "removeFile", "restoreFile", "emptyTrash"} <= set(WRITES)
    async with granted(server, await create(server, "reads", "files", readOnly=True)) as reader:
        for kind in WRITES:
            assert (await reader.ask(kind, **FIELDS[kind]))["code"] == "forbidden"
        assert (await reader.ask("listFiles", path="/"))["type"] == "fileList"
        assert (await reader.ask("statFile", path="/"))["type"] == "fileStat"
        assert (await reader.ask("listTrash"))["type"] == "trashList"
        push = await reader.ask("fsync", operation="push", files=[{"path": "/escalated", "content": "x"}])
        assert push["code"] == "forbidden"
    assert not (server.workspace / "escalated").exists()


OUTSIDE: list[tuple[str, dict[str, Any]]] = [
    ("listFiles", {"path": "/others"}),
    ("listFiles", {"path": "/"}),
    ("listFiles", {"path": "/mine/../others"}),
    ("statFile", {"path": "/others/file", "sha256": True}),
    ("makeDirectory", {"path": "/others/new"}),
    ("makeDirectory", {"path": "/minenew"}),
    ("moveFile", {"from": "/others/file", "to": "/mine/stolen"}),
    ("moveFile", {"from": "/mine/file", "to": "/others/given"}),
    ("moveFile", {"from": "/mine/file", "to": "/others/file", "replace": True}),
    ("copyFile", {"from": "/others/file", "to": "/mine/stolen"}),
    ("copyFile", {"from": "/mine/file", "to": "/others/given"}),
    ("watchFiles", {"path": "/others"}),
    ("watchFiles", {"path": "/"}),
    ("removeFile", {"path": "/others/file"}),
    ("removeFile", {"path": "/others", "recursive": True, "outright": True}),
]


@pytest.mark.parametrize(("kind", "fields"), OUTSIDE, ids=str)
async def test_other_folders_are_not_there(
    server: TestServer, limited: Client, kind: str, fields: dict[str, Any]
) -> None:
    answered = await limited.ask(kind, **fields)
    assert (answered["type"], answered["code"]) == ("error", "forbidden")
    assert "others" not in answered.get("hint", "")
    assert sorted(os.listdir(server.workspace / "others")) == ["file"]
    assert (server.workspace / "others/file").read_text() == "others"
    assert not (server.workspace / "mine/stolen").exists()


async def test_every_request_about_files_was_tried(server: TestServer) -> None:
    """Each row of the table that needs `files` is for limited grants and tried here, or about all paths."""
    tried = {kind for kind, _ in OUTSIDE} | {"listTrash", "restoreFile", "emptyTrash"}
    elsewhere = {"searchFiles", "unwatchFiles"}
    assert {k for k, row in KINDS.items() if row.needs is Scope.FILES and not row.whole} - elsewhere == tried


async def test_links_lead_it_nowhere(server: TestServer, limited: Client, two_folders: Path) -> None:
    link = two_folders / "mine/link"
    link.unlink(missing_ok=True)
    link.symlink_to("../others")
    for kind, fields in (
        ("listFiles", {"path": "/mine/link"}),
        ("statFile", {"path": "/mine/link/file", "sha256": True}),
        ("watchFiles", {"path": "/mine/link"}),
        ("makeDirectory", {"path": "/mine/link/new", "parents": True}),
        ("copyFile", {"from": "/mine/link/file", "to": "/mine/stolen"}),
        ("moveFile", {"from": "/mine/link/file", "to": "/mine/stolen"}),
        ("copyFile", {"from": "/mine/file", "to": "/mine/link/given"}),
        ("removeFile", {"path": "/mine/link/file"}),
    ):
        assert (await limited.ask(kind, **fields))["code"] == "outside-workspace"
    copied = await limited.ask("copyFile", **{"from": "/mine/link", "to": "/mine/link2"})
    assert copied["file"]["target"] == "../others"
    assert (await limited.ask("removeFile", path="/mine/link2"))["type"] == "fileRemoved"
    assert os.listdir(two_folders / "others") == ["file"]


async def test_the_trash_of_others(server: TestServer, client: Client, limited: Client) -> None:
    other = (await client.ask("removeFile", path="/others/file"))["trash"]
    mine = (await limited.ask("removeFile", path="/mine/file"))["trash"]
    ids = [item["id"] for item in (await limited.ask("listTrash"))["items"]]
    assert mine in ids
    assert other not in ids
    for kind, fields in (
        ("restoreFile", {"item": other}),
        ("restoreFile", {"item": other, "to": "/mine/stolen"}),
        ("emptyTrash", {"items": [other]}),
    ):
        nowhere = {**fields, **({"items": ["0" * 16]} if "items" in fields else {"item": "0" * 16})}
        answers = [await limited.ask(kind, **each) for each in (fields, nowhere)]
        assert [answer["code"] for answer in answers] == ["not-found", "not-found"]
    assert (await limited.ask("restoreFile", item=mine, to="/others/given"))["code"] == "forbidden"
    await limited.ask("emptyTrash")
    assert (await client.ask("restoreFile", item=other))["type"] == "fileRestored"
