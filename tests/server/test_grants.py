"""Lesser grants against a real server: every request and frame, limits, revocation, expiry, restarts."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mhnos_runtime.server.auth.grants import Access, Scope
from mhnos_runtime.server.connections.requests.files import FileRequests
from mhnos_runtime.server.connections.requests.filesearch import FileSearchRequests
from mhnos_runtime.server.connections.requests.filewatch import FileWatchRequests
from mhnos_runtime.server.connections.requests.input import InputRequests
from mhnos_runtime.server.connections.requests.processes import ProcessRequests
from mhnos_runtime.server.connections.requests.search import SearchRequests
from mhnos_runtime.server.connections.requests.state import StateRequests
from mhnos_runtime.server.connections.requests.trash import TrashRequests
from mhnos_runtime.server.connections.requests.tree import TreeRequests
from mhnos_runtime.server.connections.requests.watching import WatchRequests
from mhnos_runtime.server.main import request_table
from mhnos_runtime.testing import TestServer
from tests.server.client import NEWER, Client, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def api(server: TestServer, method: str, path: str, token: str = "", **options: Any) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {token or server.token}"}
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, server.url + path, headers=headers, **options) as response,
    ):
        return response.status, await response.json() if response.content_type.endswith("json") else None


async def create(server: TestServer, name: str, *scopes: str, **fields: Any) -> str:
    status, made = await api(server, "POST", "/v1/tokens", json={"name": name, "scopes": scopes, **fields})
    assert status == 201, made
    return str(made["token"])


@asynccontextmanager
async def granted(server: TestServer, token: str) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session:
        url = f"{server.url}/?token={token}"
        async with session.ws_connect(url, protocols=(NEWER,), max_msg_size=0) as socket:
            client = Client(socket)
            client.hello = await client.next()
            yield client


def clear(path: Path) -> None:
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


#: Of each request, fields with which it would do something.
FIELDS: dict[str, dict[str, Any]] = {
    "spawn": {"processType": "shell", "command": "touch escalated", "key": "known", "pty": False},
    "plan": {"processType": "shell"},
    "workerConfig": {"command": "x.js"},
    "write": {"data": "touch escalated\n"},
    "openInput": {"client": "c"},
    "resize": {"cols": 7, "rows": 7},
    "rename": {"name": "escalated"},
    "ack": {"offset": 0},
    "search": {"pattern": "x"},
    "unwatchFiles": {"watch": 1},
    "searchFiles": {"pattern": "x"},
    "fsync": {"operation": "push", "files": [{"path": "/escalated", "content": "x"}]},
    "listFiles": {"path": "/"},
    "statFile": {"path": "/"},
    "makeDirectory": {"path": "/escalated"},
    "moveFile": {"from": "/nowhere", "to": "/escalated"},
    "copyFile": {"from": "/nowhere", "to": "/escalated"},
    "removeFile": {"path": "/nowhere"},
    "restoreFile": {"item": "0" * 16, "to": "/escalated"},
    "emptyTrash": {"items": ["0" * 16]},
}
NOBODY: Any = None
TABLE = request_table(
    FileRequests(NOBODY, NOBODY),
    ProcessRequests(NOBODY, NOBODY, NOBODY, NOBODY, NOBODY),
    WatchRequests(NOBODY),
    SearchRequests(NOBODY, NOBODY),
    FileSearchRequests(NOBODY, NOBODY),
    InputRequests(NOBODY),
    StateRequests(NOBODY, NOBODY),
    FileWatchRequests(NOBODY, NOBODY),
    TreeRequests(NOBODY, NOBODY, NOBODY),
    TrashRequests(NOBODY, NOBODY, NOBODY),
)
KINDS = {str(kind.__struct_config__.tag): row for kind, row in TABLE.rows.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scope", [scope for scope in Scope if scope is not Scope.CONTROL])
async def test_each_request_needs_its_scope(
    server: TestServer, client: Client, kind: str, scope: Scope
) -> None:
    """The table is walked, so that a new request is asked for here too."""
    pid = await client.spawn(kind="shell", command="read x; touch escalated", pty=False, key="known")
    token = await create(server, f"{kind}-{scope}", scope)
    async with granted(server, token) as lesser:
        assert lesser.hello["scopes"] == [scope]
        answered = await lesser.ask_any(kind, pid=pid, **FIELDS.get(kind, {}))
        refused = answered.get("code") == "forbidden"
        needs = KINDS[kind].needs
        assert refused is (needs not in (scope, Access.GRANTED))
        if refused:
            assert str(needs) in answered["error"]
    escalated = server.workspace / "escalated"
    assert refused or needs is Scope.FILES or not escalated.exists()
    clear(escalated)


async def test_a_view_may_type_by_no_frame_and_repaint_nothing(server: TestServer, client: Client) -> None:
    pid = await client.spawn("shell")
    async with granted(server, await create(server, "looks", "view")) as view:
        await view.type(pid, b"touch escalated\n")
        assert (await view.until("error"))["code"] == "forbidden"
        await view.number(pid, 0, b"touch escalated\n")
        assert (await view.until("error"))["code"] == "forbidden"
        answer = await view.ask("attach", pid=pid, repaint=True)
        assert answer["code"] == "forbidden"
        assert "control" in answer["error"]
        assert (await view.ask("attach", pid=pid))["type"] == "attached"
        await client.send("write", pid=pid, data="echo se''en\n")
        await view.text(pid, "seen")
        large = json.dumps(
            {
                "type": "fsync",
                "id": 7,
                "operation": "push",
                "files": [{"path": "/escalated", "content": "x" * 2_000_000}],
            }
        )
        await view.socket.send_str(large)
        assert (await view.until("error", id=7))["code"] == "forbidden"
    assert not (server.workspace / "escalated").exists()
    await client.ask("kill", pid=pid)


async def test_a_limited_grant_knows_no_other_process(server: TestServer, client: Client) -> None:
    mine, other = await client.run("read x"), await client.run("read x")
    token = await create(server, "limited", "control", processes=[mine])
    async with granted(server, token) as limited:
        rows = (await limited.ask("list", all=True))["processes"]
        assert [row["pid"] for row in rows] == [mine]
        assert [row["pid"] for row in (await limited.ask("stats"))["processes"]] == [mine]
        for kind in ("attach", "stats", "closeStdin", "credentials"):
            there, nowhere = await limited.ask(kind, pid=other), await limited.ask(kind, pid=99_999)
            assert there["code"] == nowhere["code"] == "unknown-process"
            assert there["error"].replace(str(other), "") == nowhere["error"].replace("99999", "")
        assert (await limited.ask("spawn", processType="shell"))["code"] == "forbidden"
        await limited.send("write", pid=other, data="x\n")
        await limited.type(other, b"x\n")
        assert (await limited.ask("kill", pid=other))["type"] == "killed"
        await limited.type(mine, b"x\n")
        assert (await limited.ask("attach", pid=mine))["type"] == "attached"
        await limited.exit(mine)
    rows = (await client.ask("list"))["processes"]
    assert other in [row["pid"] for row in rows]
    await client.ask("kill", pid=other)


async def test_a_revoked_token_ends_its_connections_also_in_a_flood(
    server: TestServer, client: Client
) -> None:
    pid = await client.run("yes")
    token = await create(server, "flooded", "view")
    async with granted(server, token) as first, granted(server, token) as second:
        assert (await first.ask("attach", pid=pid))["type"] == "attached"
        assert (await api(server, "DELETE", "/v1/tokens/FLOODED"))[0] == 204
        assert await first.expect_close() == await second.expect_close() == 1008
    assert (await api(server, "GET", "/v1/tokens", token))[0] == 401
    assert (await api(server, "DELETE", "/v1/tokens/flooded"))[0] == 404
    assert (await client.ask("ping"))["type"] == "pong"
    await client.ask("kill", pid=pid)


async def test_a_grant_that_expires_ends_its_connection(server: TestServer) -> None:
    async with granted(server, await create(server, "short", "view", lifetimeMs=1500)) as short:
        assert await short.expect_close() == 1008
    assert "short" not in [each["name"] for each in (await api(server, "GET", "/v1/tokens"))[1]["tokens"]]
    await create(server, "short", "view")


async def test_only_the_operator_makes_tokens(server: TestServer) -> None:
    """One with every scope cannot make another that would outlive its own revocation."""
    all_scopes = await create(server, "everything", *Scope)
    for method, path in (("GET", "/v1/tokens"), ("POST", "/v1/tokens"), ("DELETE", "/v1/tokens/everything")):
        status, body = await api(server, method, path, all_scopes)
        assert (status, body["code"]) == (403, "forbidden")


BAD = [
    {"name": "a\r\nX-Evil: 1"},
    {"name": ""},
    {"name": " a"},
    {"name": "a" * 65},
    {"name": "../x"},
    {"name": "a\x00"},
    {"name": "\u202ea"},
    {"scopes": []},
    {"scopes": ["root"]},
    {"processes": []},
    {"processes": [-1]},
    {"paths": ["src"]},
    {"paths": ["/a/../.."]},
    {"paths": ["/" + "x" * 2000] * 3},
    {"lifetimeMs": 0},
    {"lifetimeMs": 10**18},
    {"expires": None},
    {"digest": "0" * 64},
]


@pytest.mark.parametrize("fields", BAD, ids=str)
async def test_what_is_no_token(server: TestServer, fields: dict[str, Any]) -> None:
    body = {"name": "fine", "scopes": ["view"], **fields}
    status, answer = await api(server, "POST", "/v1/tokens", json=body)
    assert status in (400, 413)
    assert answer["code"] in ("invalid-argument", "too-large")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b'{"name":"\\ud800"}'])
async def test_a_body_that_is_none(server: TestServer, data: bytes) -> None:
    assert (await api(server, "POST", "/v1/tokens", data=data))[0] == 400


async def test_two_names_alike(server: TestServer) -> None:
    await create(server, "Twin", "view")
    status, answer = await api(server, "POST", "/v1/tokens", json={"name": "twin", "scopes": ["view"]})
    assert (status, answer["code"]) == (409, "name-taken")


async def test_each_way_of_showing_and_no_mixture(server: TestServer) -> None:
    one, two = await create(server, "way-1", "view"), await create(server, "way-2", "view")
    assert (await api(server, "GET", "/", one))[0] == 426
    async with aiohttp.ClientSession() as session:
        for options in ({"params": {"token": one}}, {"protocols": (NEWER, f"mhnos.token.{one}")}):
            async with session.ws_connect(server.url, **options) as socket:
                assert json.loads((await socket.receive(10)).data)["scopes"] == ["view"]
    assert (await api(server, "GET", "/", one, params={"token": two}))[0] == 401
    assert (await api(server, "GET", "/", one, params={"token": server.token}))[0] == 401


async def test_grants_outlive_server_and_runtime_and_no_secret_is_kept(tmp_path: Path) -> None:
    async with TestServer(tmp_path) as server:
        token = await create(server, "kept", "view")
        async with granted(server, token):
            pass
        before = server.server_pid()
        os.kill(before, signal.SIGKILL)

        async def again() -> bool:
            return server.server_pid() != before

        await eventually(again)
        async with granted(server, token) as client:
            assert client.hello["scopes"] == ["view"]
    file = tmp_path / "state" / "grants.json"
    assert file.stat().st_mode & 0o777 == 0o600
    for path in (file, tmp_path / "server.log"):
        assert token not in path.read_text()
    async with TestServer(tmp_path) as server:
        (row,) = (await api(server, "GET", "/v1/tokens"))[1]["tokens"]
        assert (row["name"], row["lastUsed"] is None) == ("kept", False)
        async with granted(server, token):
            pass


@pytest.mark.parametrize("kind", ["half", "fifo"])
async def test_a_damaged_store_is_set_aside_and_said(tmp_path: Path, kind: str) -> None:
    """All ways in which it can be damaged are in auth/test_grantfile.py."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    file = state / "grants.json"
    if kind == "fifo":
        os.mkfifo(file, 0o600)
    else:
        file.write_text("{")
        file.chmod(0o600)
    async with TestServer(tmp_path) as server:
        await create(server, "after", "view")
        assert "stored grants cannot be used" in server.log.read_text()
        assert list(state.glob("grants.json.set-aside.*"))
