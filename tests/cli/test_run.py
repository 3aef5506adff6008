"""What `run` asks the server for, and what it says when there is no such kind."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.testing import TestServer
from tests.cli.console import command

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[TestServer]:
    async with TestServer(tmp_path) as running:
        yield running


async def run(server: TestServer, *words: str, **env: str) -> tuple[int, str, str]:
    known = {"MHNOS_STATE_DIR": str(server.state_dir), "MHNOS_URL": server.url, "NO_COLOR": "1", **env}
    code, out, err = await command("run", *words, env=known)
    return code, out.decode(), err.decode()


async def planned(server: TestServer, *words: str, **env: str) -> dict[str, Any]:
    code, out, err = await run(server, "--dry-run", *words, **env)
    assert code == 0, err
    plan: dict[str, Any] = json.loads(out)["plan"]
    return plan


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("bash",), "run shell bash;"),
        (("npm", "install"), "run shell 'npm install';"),
        (("npm install",), "run shell 'npm install';"),
        (("-it", "htop"), "run -it shell htop;"),
        (("-d", "./serve", "--name", "a b"), "run -d shell './serve --name '\"'\"'a b'\"'\"'';"),
    ],
)
async def test_a_program_in_the_place_of_the_kind(
    server: TestServer, words: tuple[str, ...], hint: str
) -> None:
    code, _out, err = await run(server, *words)
    assert code == 125 or "not a TTY" in err
    if "not a TTY" not in err:
        assert f"use: mhnos-runtime {hint} as a kind use one of node, python, shell" in err


async def test_words_of_a_shell(server: TestServer) -> None:
    (server.workspace / "dir").mkdir()
    (server.workspace / "dir" / "a").touch()
    assert await run(server, "shell", "ls", "dir") == (0, "a\n", "")
    assert await run(server, "shell", "--", "ls") == (0, "dir\n", "")
    assert await run(server, "shell", "-c", 'ls "$1"; echo "$0"', "x", "dir") == (0, "a\nx\n", "")
    assert await run(server, "shell", "ls dir; exit 3") == (3, "a\n", "")
    assert await run(server, "shell", "bash", "-lc", "cd dir && ls") == (0, "a\n", "")
    code, _out, err = await run(server, "shell", "nosuch-program", "x")
    assert (code, "nosuch-program" in err) == (127, True)


async def test_a_folder_that_is_not_there(server: TestServer) -> None:
    (server.workspace / "precious").touch()
    code, out, err = await run(server, "-w", "nosuch", "shell", "rm *")
    assert (code, out, "/nosuch" in err) == (127, "", True)
    assert (server.workspace / "precious").exists()


@pytest.mark.parametrize(
    ("words", "terminal"),
    [
        (("-d", "shell", "ls"), False),
        (("-d", "shell", "ls", "-l"), False),
        (("-d", "shell", "-c", "ls"), False),
        (("-d", "shell"), True),
        (("-d", "shell", "bash"), True),
        (("-d", "-t", "shell", "ls"), True),
        (("-d", "python", "-V"), False),
        (("shell", "ls"), False),
        (("shell",), False),
    ],
)
async def test_who_gets_a_terminal(server: TestServer, words: tuple[str, ...], terminal: bool) -> None:
    """A command that runs detached once had its streams merged, and CRLF in its log."""
    assert bool((await planned(server, *words))["pty"]) is terminal


async def test_a_detached_command_keeps_its_streams_apart(server: TestServer) -> None:
    _code, pid, _err = await run(server, "-d", "shell", "echo out; echo err >&2")
    known = {"MHNOS_STATE_DIR": str(server.state_dir), "MHNOS_URL": server.url}
    assert await command("logs", "-f", pid.strip(), env=known) == (0, b"out\n", b"err\n")


async def test_a_variable_without_a_value_is_the_callers_own_or_none(server: TestServer) -> None:
    """One that is not set once became an empty one."""
    assert "BAD" not in os.environ
    env = (await planned(server, "-e", "BAD", "-e", "GOOD", "-e", "EMPTY=", "shell", "env", GOOD="1"))["env"]
    assert "BAD" not in env
    assert (env["GOOD"], env["EMPTY"]) == ("1", "")


async def test_node_env(server: TestServer) -> None:
    assert (await planned(server, "node", "-v"))["env"]["NODE_ENV"] == "production"
    for words in (("-e", "NODE_ENV=", "node", "-v"), ("shell", "npm install"), ("python", "-V")):
        assert "NODE_ENV" not in (await planned(server, *words))["env"]


async def test_what_python_prints_is_in_the_log_at_once(server: TestServer) -> None:
    """A banner once came with the end of the program."""
    (server.workspace / "wait.py").write_text("print('banner')\nimport time\ntime.sleep(600)\n")
    known = {"MHNOS_STATE_DIR": str(server.state_dir), "MHNOS_URL": server.url}
    for words in (("python", "wait.py"), ("shell", "python3", "wait.py")):
        _code, pid, _err = await run(server, "-d", *words)
        async with asyncio.timeout(60):
            while (await command("logs", pid.strip(), env=known))[1] != b"banner\n":
                pass
