"""`token create`, `list` and `revoke`: the command against a real runtime, and what it says of faults."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from mhnos_runtime.client import connect
from mhnos_runtime.testing import TestServer
from tests.cli.console import command
from tests.client.fake import FakeServer
from tests.server.client import eventually

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TestServer]:
    async with TestServer(tmp_path_factory.mktemp("tokens")) as running:
        yield running


def env_of(server: TestServer, **more: str) -> dict[str, str]:
    return {"MHNOS_STATE_DIR": str(server.state_dir), "MHNOS_URL": server.url, "NO_COLOR": "1", **more}


async def token(server: TestServer, *args: str, **more: str) -> tuple[int, str, str]:
    code, out, err = await command("token", *args, env=env_of(server, **more))
    return code, out.decode(), err.decode()


async def test_made_used_listed_and_revoked(server: TestServer) -> None:
    code, out, err = await token(
        server, "create", "--name", "Ann B.", "--scope", "view", "--scope", "view", "--expires", "7d"
    )
    assert (code, err) == (0, "")
    async with connect(server.url, out.strip()) as runtime:
        assert runtime.hello.scopes == ["view"]
    code, out, _ = await token(server, "list")
    head, row = (line for line in out.splitlines() if line.startswith(("NAME", "Ann B.")))
    assert head.split("  ")[0] == "NAME"
    assert row.split()[2:] == ["view", "-", "in", "6d", "23h", *row.split()[7:]]
    assert row.endswith(" ago")
    assert (await token(server, "revoke", "ann b."))[:2] == (0, "")
    assert "Ann B." not in (await token(server, "list"))[1]
    code, out, err = await token(server, "revoke", "ann b.")
    assert (code, out) == (1, "")
    assert "There is no token 'ann b.'" in err


async def test_as_json(server: TestServer) -> None:
    limits = ("--process", "1000", "--process", "1001", "--path", ":src", "--read-only")
    code, out, _ = await token(server, "create", "--name", "j", "--scope", "files", *limits, "--json")
    made = json.loads(out)
    assert (code, made["processes"], made["paths"], made["readOnly"]) == (0, [1000, 1001], ["/src"], True)
    secret = made.pop("token")
    code, out, _ = await token(server, "list", "--json")
    assert (code, [row for row in json.loads(out) if row["name"] == "j"]) == (0, [made])
    assert secret not in out
    assert "1000 1001 /src" in (await token(server, "list"))[1]


async def test_a_file_with_a_token_does_as_well(server: TestServer, tmp_path: Path) -> None:
    _, secret, _ = await token(server, "create", "--name", "other", "--scope", "control")
    file = tmp_path / "token"
    file.write_text(secret)
    code, _, err = await token(server, "list", "--token-file", str(file))
    assert code == 1
    assert "This needs the operator's own token" in err
    assert "hint: the token that mhnos-runtime token shows has it" in err
    assert (await command("ps", "--token-file", str(file), env=env_of(server)))[0] == 0
    await token(server, "revoke", "other")
    assert (await command("ps", "--token-file", str(file), env=env_of(server)))[0] == 1


async def test_who_may_only_view_watches(server: TestServer, tmp_path: Path) -> None:
    _, secret, _ = await token(server, "create", "--name", "viewer", "--scope", "view")
    file = tmp_path / "token"
    file.write_text(secret)
    options = ("--token-file", str(file))
    async with connect(server.url, server.token) as runtime:
        process = await runtime.spawn("shell", "read x; echo got:$x", pty=False)
        pid = str(process.pid)
        watching = asyncio.create_task(
            command("attach", *options, pid, stdin=b"from the viewer\n", env=env_of(server))
        )

        async def watched() -> bool:
            return any(row.viewers == 2 for row in await runtime.list())

        await eventually(watched)
        for verb in (("kill", pid), ("write", pid, "x"), ("run", "shell", "true")):
            code, _, err = await command(*verb[:1], *options, *verb[1:], env=env_of(server))
            assert code != 0
            assert b'the scope "control"' in err
        await process.write("from the operator\n")
        code, out, err = await watching
        assert (code, out) == (0, b"got:from the operator\n")
        assert err.count(b"view only") == 1


async def test_who_is_revoked_while_watching_is_told_and_leaves(server: TestServer, tmp_path: Path) -> None:
    _, secret, _ = await token(server, "create", "--name", "watcher", "--scope", "view")
    file = tmp_path / "token"
    file.write_text(secret)
    async with connect(server.url, server.token) as runtime:
        process = await runtime.spawn("shell", "yes", pty=False, attach=False)
        attaching = command("attach", "--token-file", str(file), str(process.pid), env=env_of(server))
        watching = asyncio.create_task(attaching)

        async def watched() -> bool:
            return any(row.viewers == 1 for row in await runtime.list() if row.pid == process.pid)

        await eventually(watched)
        assert (await token(server, "revoke", "watcher"))[0] == 0
        code, _, err = await watching
        assert code == 125
        assert b"its grant was revoked or has expired" in err
        await process.kill("SIGKILL")


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("create", "--scope", "view"), 2, "--name"),
        (("create", "--name", "x"), 2, "--scope"),
        (("create", "--name", "x", "--scope", "root"), 2, "root"),
        (("create", "--name", "x", "--scope", "view", "--expires", "soon"), 2, "duration"),
        (("create", "--name", "x", "--scope", "view", "--process", "ALL"), 2, "pid"),
        (("create", "--name", "a/b", "--scope", "view"), 1, "name: expected 1 to 64"),
        (("create", "--name", "x", "--scope", "view", "--expires", "0s"), 1, "lifetimeMs"),
        (("create", "--name", "x", "--scope", "view", "--path", "../src"), 1, "paths"),
        (("create", "--name", "x", "--scope", "view", "--process", "9" * 30), 1, "processes"),
        (("revoke",), 2, "NAME"),
        (("revoke", "../tokens"), 1, "There is"),
        (("revoke", ""), 1, "There is"),
        (("--rotate", "list"), 2, "without a further verb"),
        (("--json", "list"), 2, "without a further verb"),
    ],
    ids=str,
)
async def test_what_is_wrong_is_said(server: TestServer, args: tuple[str, ...], code: int, said: str) -> None:
    before = server.token
    found, out, err = await token(server, *args)
    assert (found, out) == (code, "")
    assert said in err
    assert "Traceback" not in err
    assert server.token == before


async def test_a_name_that_is_taken(server: TestServer) -> None:
    assert (await token(server, "create", "--name", "twice", "--scope", "view"))[0] == 0
    code, _, err = await token(server, "create", "--name", "TWICE", "--scope", "view")
    assert code == 1
    assert "hint: choose another name" in err


async def test_without_a_runtime_and_with_a_wrong_token(server: TestServer) -> None:
    code, _, err = await token(server, "list", MHNOS_URL="http://127.0.0.1:9")
    assert code == 1
    assert "cannot ask" in err
    code, _, err = await token(server, "list", MHNOS_TOKEN="x" * 43)
    assert code == 1
    assert "refused the token" in err
    assert "x" * 43 not in err


async def test_a_runtime_that_is_older_and_one_that_is_none() -> None:
    async with FakeServer() as fake:
        for args in (("list",), ("create", "--name", "x", "--scope", "view"), ("revoke", "x")):
            code, out, err = await command("token", *args, env={"MHNOS_URL": fake.url, "MHNOS_TOKEN": "t"})
            assert (code, out) == (1, b"")
            assert b"Traceback" not in err
