"""Grants under stress, against a real server: both tables walked, other people's processes, endings in the
middle of everything, a thousand grants, and a full disk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from mhnos_runtime.server.auth.grantfile import MAX_GRANTS, GrantFile, Stored
from mhnos_runtime.server.auth.grants import Access, Scope
from mhnos_runtime.testing import TestServer
from tests.server.client import HEADER, OUTPUT, Client, Closed, connect, eventually
from tests.server.conftest import server_in
from tests.server.test_doors import ROUTES, UPGRADE, raw
from tests.server.test_grants import FIELDS, KINDS, api, clear, create, granted

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TestServer]:
    """Its log tells who comes and goes."""
    flags = ("--kill-grace-seconds", "1", "--max-processes", "200", "--log-level", "debug")
    async with server_in(tmp_path_factory.mktemp("server"), *flags) as running:
        yield running


WHOLE = {kind for kind, row in KINDS.items() if row.whole}


# Both tables


@pytest.mark.parametrize(("method", "pattern", "upgrade"), ROUTES)
async def test_what_a_view_may_of_each_route(
    server: TestServer, method: str, pattern: str, upgrade: bool
) -> None:
    token = await create(server, f"route {abs(hash((method, pattern, upgrade)))}", "view")
    path = re.sub(r"[{}]|\.\.\.", "", pattern)
    status = await raw(server, method, f"{path}?token={token}", UPGRADE if upgrade else {})
    if ROUTES[method, pattern, upgrade] is Access.OPEN:
        assert status == 200
    elif ROUTES[method, pattern, upgrade] is Access.GRANTED:
        assert status == (101 if upgrade else 426 if path == "/" else 200)
    else:
        assert status == 403
    assert [row["name"] for row in (await api(server, "GET", "/v1/tokens"))[1]["tokens"]]


@pytest.mark.parametrize("kind", KINDS)
async def test_no_request_tells_whether_somebody_else_s_process_is_there(
    server: TestServer, client: Client, kind: str
) -> None:
    """Each answer about a process of others is that about none, whatever the request; and it does nothing."""
    mine, other = await client.run("read x"), await client.run("read x; touch escalated")
    token = await create(server, f"limited {kind}", "control", "files", processes=[mine])
    async with granted(server, token) as limited:
        answers = []
        for pid in (other, 99_999):
            answered = await limited.ask_any(kind, **{**FIELDS.get(kind, {}), "pid": pid, "escalate": False})
            answered.pop("id")
            answers.append(json.dumps(answered).replace(str(pid), "PID"))
        of_files = KINDS[kind].needs is Scope.FILES
        volatile = of_files or kind in ("ping", "status", "list") or '"pong"' in answers[0]
        assert volatile or answers[0] == answers[1]
        assert str(other) not in answers[0]
        if kind in WHOLE and kind != "fsync":
            assert '"forbidden"' in answers[0]
        await limited.quiet()
        assert not any(message.get("pid") == other for message in limited.seen if message["type"] in OUTPUT)
    clear(server.workspace / "escalated")
    pids = [row["pid"] for row in (await client.ask("list"))["processes"]]
    assert {mine, other} <= set(pids)
    for pid in (mine, other):
        await client.ask("kill", pid=pid)


async def test_no_frame_reaches_somebody_else_s_process(server: TestServer, client: Client) -> None:
    mine, other = await client.run("read x"), await client.run("read x; echo got $x")
    token = await create(server, "frames", "control", processes=[mine])
    await client.ask("attach", pid=other)
    async with granted(server, token) as limited:
        errors = []
        for pid in (other, 99_999):
            await limited.number(pid, 0, b"x\n")
            errors.append((await limited.until("error"))["error"])
            await limited.type(pid, b"x\n")
            await limited.socket.send_bytes(HEADER.pack(1, 0, 0, pid, 0) + b"x\n")
            errors.append((await limited.until("error"))["error"])
        assert errors[:2] == errors[2:]
        await limited.quiet()
    await client.quiet()
    assert "got" not in client.output(other)
    for pid in (mine, other):
        await client.ask("kill", pid=pid)


# Endings in the middle of everything


async def rest(client: Client) -> tuple[int | None, list[dict[str, Any]]]:
    """How it is closed, and what came before."""
    start = len(client.seen)
    code = await client.expect_close()
    return code, client.seen[start:]


@pytest.mark.parametrize("way", ["expires", "revoked"])
async def test_a_flood_is_cut_where_the_grant_ends(server: TestServer, client: Client, way: str) -> None:
    """What was on its way then is all that is shown of what is written afterwards."""
    pid = await client.run("yes before & read x; kill $!; wait; yes after", attach=False)
    lifetime = {"lifetimeMs": 2000} if way == "expires" else {}
    async with granted(server, await create(server, f"flood {way}", "view", **lifetime)) as view:
        try:
            assert (await view.ask("attach", pid=pid, **{"from": "end"}))["type"] == "attached"
            if way == "revoked":
                await view.text(pid, "before")
                assert (await api(server, "DELETE", f"/v1/tokens/flood%20{way}"))[0] == 204
            code = await view.expect_close()
        except Closed as closed:
            # On a busy machine it has expired by then.
            code = closed.code
        assert code == 1008
        await client.send("write", pid=pid, data="\n")
        assert "after" not in view.output(pid)
    rows = (await client.ask("list"))["processes"]
    assert [row["viewers"] for row in rows if row["pid"] == pid] == [0]
    await client.ask("kill", pid=pid)


async def test_one_who_does_not_read_is_gone_too(server: TestServer, client: Client) -> None:
    """The close frame stands behind what was not read; the connection ends all the same."""
    pid = await client.run("yes", attach=False)
    async with granted(server, await create(server, "deaf", "view")) as view:
        await view.send("attach", pid=pid)
        await view.until(OUTPUT[0])
        view.socket._response.connection.transport.pause_reading()  # type: ignore[union-attr]
        assert (await api(server, "DELETE", "/v1/tokens/deaf"))[0] == 204

        rows = (await client.ask("list"))["processes"]
        assert [row["viewers"] for row in rows if row["pid"] == pid] == [0]

        async def closed() -> bool:
            lines = server.log.read_text().splitlines()
            (number,) = [json.loads(line)["connection"] for line in lines if '"token:deaf"' in line]
            left = [json.loads(line) for line in lines if '"client left"' in line]
            return number in [line["connection"] for line in left]

        await eventually(closed)
        view.vanish()
    await client.ask("kill", pid=pid)


async def test_a_large_push_stops_where_its_grant_ends(server: TestServer, client: Client) -> None:
    """What is whole stays; nothing that comes later is written, and no draft is left."""
    token = await create(server, "pusher", "files")
    folder = server.workspace / "pushed"
    async with granted(server, token) as pusher:
        head = '{"type":"fsync","id":1,"operation":"push","files":['
        file = '{{"path":"/pushed/{}","content":"' + "x" * 300_000 + '"}},'
        # One message, of which the end never comes: by hand, since the library sends whole ones.
        parts = [head, *(file.format(number) for number in range(8))]
        total = 100 << 20
        writer = pusher.socket._writer.transport
        mask = b"\0\0\0\0"
        writer.write(bytes([0x81, 0xFF]) + total.to_bytes(8) + mask)
        for part in parts:
            writer.write(part.encode())

        async def begun() -> bool:
            return (folder / "5").exists()

        await eventually(begun)
        assert (await api(server, "DELETE", "/v1/tokens/pusher"))[0] == 204
        before = {path.name for path in folder.iterdir()}
        with contextlib.suppress(ConnectionError, RuntimeError):
            for number in range(8, 20):
                writer.write(file.format(number).encode())
        code, answers = await rest(pusher)
        assert code == 1008
        assert answers == []

    async def no_draft() -> bool:
        return all(path.name.isdigit() for path in folder.iterdir())

    await eventually(no_draft)
    after = {path.name for path in folder.iterdir()}
    assert not after - before - {"6", "7"}
    assert all(path.stat().st_size == 300_000 for path in folder.iterdir())
    assert (await client.ask("ping"))["type"] == "pong"


async def test_a_spawn_under_way_when_the_grant_ends(server: TestServer, client: Client) -> None:
    """Whatever was begun is known to the operator; what waited behind it is not begun."""
    token = await create(server, "spawner", "control")
    before = {row["pid"] for row in (await client.ask("list", all=True))["processes"]}
    async with granted(server, token) as spawner:
        for number in range(20):
            await spawner.send(
                "spawn", id=number, processType="shell", command=f"touch spawned.{number}; read x", pty=False
            )
        assert (await api(server, "DELETE", "/v1/tokens/spawner"))[0] == 204
        assert await spawner.expect_close() == 1008
        told = [message["pid"] for message in spawner.seen if message["type"] == "spawned"]

    async def settled() -> bool:
        """Nothing is starting any more: another one, which comes behind, has started."""
        return bool(await client.run("true"))

    await eventually(settled)
    rows = (await client.ask("list"))["processes"]
    started = {row["pid"] for row in rows if str(row["command"]).startswith("touch spawned.")} - before
    assert set(told) <= started
    # One at a time is under way.
    assert len(started) <= len(told) + 1
    for pid in started:
        assert (await client.ask("kill", pid=pid))["type"] == "killed"


async def test_nothing_that_waits_is_done_once_the_grant_has_ended(
    server: TestServer, client: Client
) -> None:
    pid = await client.run("cat > typed")
    token = await create(server, "typist", "control", "files")
    async with granted(server, token) as typist:
        await typist.send("fsync", id=1, operation="pull")
        for _ in range(50):
            await typist.send("write", pid=pid, data="too late\n")
        await asyncio.sleep(0)
        assert (await api(server, "DELETE", "/v1/tokens/typist"))[0] == 204
        assert await typist.expect_close() == 1008
        # It is closed: what comes now is not even looked at.
        with contextlib.suppress(ConnectionError):
            await typist.type(pid, b"much too late\n")
    await client.ask("closeStdin", pid=pid)
    await client.ask("attach", pid=pid)
    await client.exit(pid)
    assert "much too late" not in (server.workspace / "typed").read_text()


async def test_a_revoked_token_comes_back_nowhere(server: TestServer) -> None:
    token = await create(server, "gone", "control")
    async with granted(server, token) as one:
        assert (await api(server, "DELETE", "/v1/tokens/gone"))[0] == 204
        assert await one.expect_close() == 1008
    assert await raw(server, "GET", f"/?token={token}", UPGRADE) in (401, 429)
    assert await raw(server, "GET", "/", {**UPGRADE, "Authorization": f"Bearer {token}"}) in (401, 429)
    # Its successor is somebody else.
    await create(server, "gone", "view")
    assert await raw(server, "GET", f"/?token={token}", UPGRADE) in (401, 429)


# Servers of their own


async def test_a_thousand_grants(tmp_path: Path) -> None:
    """All are told apart; the last one is found as fast as the first; all end at once."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    rows = [
        Stored(name=f"a{number}", scopes=[Scope.VIEW], digest=f"{number:064x}", created=1)
        for number in range(MAX_GRANTS - 20)
    ]
    await asyncio.to_thread(GrantFile(state).save, rows)
    async with TestServer(tmp_path) as server, contextlib.AsyncExitStack() as stack:
        tokens = [await create(server, f"real {number}", "view") for number in range(20)]
        status, answer = await api(server, "POST", "/v1/tokens", json={"name": "more", "scopes": ["view"]})
        assert (status, answer["code"]) == (503, "limit-reached")
        clients = [await stack.enter_async_context(granted(server, token)) for token in tokens]
        for number in range(20):
            assert (await api(server, "DELETE", f"/v1/tokens/real%20{number}"))[0] == 204
        assert [await each.expect_close() for each in clients] == [1008] * 20
        assert len((await api(server, "GET", "/v1/tokens"))[1]["tokens"]) == MAX_GRANTS - 20


async def test_a_grant_of_processes_does_not_outlive_the_runtime(tmp_path: Path) -> None:
    """After a start without records pids begin at 1000 again: the grant showed whatever had that number."""
    async with TestServer(tmp_path, "--retain-count", "0") as server, connect(server) as client:
        pid = await client.run("read x")
        limited = await create(server, "limited", "view", processes=[pid])
        free = await create(server, "free", "view")
        async with granted(server, limited) as view:
            assert [row["pid"] for row in (await view.ask("list"))["processes"]] == [pid]
    async with TestServer(tmp_path) as server, connect(server) as client:
        assert (await api(server, "GET", "/", limited))[0] == 401
        assert (await api(server, "GET", "/", free))[0] == 426


async def test_a_file_that_a_process_opens_to_others_is_closed_again(tmp_path: Path) -> None:
    """The next server would have set it aside, and all grants would have been gone."""
    async with TestServer(tmp_path) as server:
        await create(server, "ann", "view")
        file = server.state_dir / "grants.json"
        async with connect(server) as client:
            await client.exit(await client.run(f"chmod 666 {file}"))

        async def closed() -> bool:
            return file.stat().st_mode & 0o777 == 0o600

        await eventually(closed)
        assert "the file of the stored grants was changed, and is written anew" in server.log.read_text()


@pytest.fixture
def small_state(tmp_path: Path) -> Iterator[Path]:
    """A directory whose `state` is a small file system of its own."""
    state = tmp_path / "state"
    state.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", str(state)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    yield tmp_path
    while state.is_mount():
        subprocess.run(["umount", "-l", str(state)], check=True)


@pytest.mark.parametrize("way", ["full", "read-only"])
async def test_a_disk_that_takes_nothing(small_state: Path, way: str) -> None:
    """No grant is made, what there was stays on disk and in memory; a revocation is in force all the same."""
    async with TestServer(small_state) as server:
        state = server.state_dir
        kept = await create(server, "kept", "view")
        revoked = await create(server, "revoked", "view")
        before = (state / "grants.json").read_bytes()
        if way == "full":
            with contextlib.suppress(OSError):
                (state / "filler").write_bytes(b"x" * 4_000_000)
        else:
            # Over it, since nothing becomes read-only in which files are open to be written.
            subprocess.run(["mount", "--bind", str(state), str(state)], check=True)
            subprocess.run(["mount", "-o", "remount,bind,ro", str(state)], check=True)
        status, answer = await api(server, "POST", "/v1/tokens", json={"name": "new", "scopes": ["view"]})
        assert (status, answer["code"]) == (503, "unavailable")
        assert "could not be written" in answer["error"]
        async with granted(server, revoked) as gone:
            status, answer = await api(server, "DELETE", "/v1/tokens/revoked")
            assert (status, answer["code"]) == (503, "unavailable")
            assert "is revoked, but only until" in answer["error"]
            assert await gone.expect_close() == 1008
        assert (state / "grants.json").read_bytes() == before
        rows = (await api(server, "GET", "/v1/tokens"))[1]["tokens"]
        assert [row["name"] for row in rows] == ["kept"]
        async with granted(server, kept):
            pass
        if way == "full":
            (state / "filler").unlink()
        else:
            subprocess.run(["umount", str(state)], check=True)
        assert (await api(server, "DELETE", "/v1/tokens/revoked"))[0] == 204
        assert b"revoked" not in (state / "grants.json").read_bytes()
        await create(server, "new", "view")
        assert not list(state.glob(".grants.json.*"))
