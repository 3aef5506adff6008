"""The Tab key: bash's own completion with the script that the command prints, against a real runtime."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import click
import pytest

from mhnos_runtime.cli.complete import handles
from mhnos_runtime.cli.completion import script
from mhnos_runtime.testing import TestServer
from tests.cli.console import command
from tests.client.peer import Peer, Scripted

Env = dict[str, str]
# What bash does at a Tab key behind these words, the last of which is unfinished.
_TAB = """
source <("$1" -m mhnos_runtime completion bash)
shift
mhnos-runtime() { "$PYTHON" -m mhnos_runtime "$@"; }
compopt() { echo compopt "$@" >&2; }
env() { builtin command env "${@:1:3}" "$PYTHON" -m mhnos_runtime; }
COMP_LINE=$1; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_mhnos_runtime_completion mhnos-runtime
printf '%s\\n' "${COMPREPLY[@]}"
"""


def typed(line: str) -> list[str]:
    """The words that bash makes of a line: = and : are words of their own."""
    return re.findall(r"[=:]+|[^\s=:]+", line) + ([""] if line.endswith(" ") else [])


async def tab(line: str, env: Env) -> tuple[list[str], str]:
    """What is offered behind a line, and what was said on stderr."""
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        _TAB,
        "bash",
        sys.executable,
        f"mhnos-runtime {line}",
        "mhnos-runtime",
        *typed(line),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **env, "PYTHON": sys.executable},
    )
    async with asyncio.timeout(40):
        out, err = await process.communicate()
    return out.decode().split(), err.decode()


async def offered(line: str, env: Env) -> list[str]:
    found, said = await tab(line, env=env)
    assert said.replace("compopt -o nospace\n", "") == ""
    return found


@pytest.mark.asyncio(loop_scope="module")
async def test_verbs_options_and_choices_are_offered(env: Env) -> None:
    assert await offered("re", env=env) == ["rename", "reload"]
    assert "--filter" in await offered("ps --", env=env)
    assert await offered("run --network ", env=env) == ["host", "loopback", "none"]
    assert await offered("kill -s us", env=env) == ["USR1", "USR2"]
    assert await offered("engines install ", env=env) == ["node", "workerd", "openclaw"]
    assert {"node", "python", "shell"} <= set(await offered("run ", env=env))


@pytest.mark.asyncio(loop_scope="module")
async def test_what_bash_breaks_is_one_word(env: Env) -> None:
    """bash breaks words at = and :, and so kinds were offered where a folder or a file was to come."""
    assert await offered("run --network=l", env=env) == ["loopback"]
    assert await offered("run --network=", env=env) == ["host", "loopback", "none"]
    assert await offered("run -e DEBUG=1 --network n", env=env) == ["none"]
    assert await offered("run -e A=b py", env=env) == ["python"]
    assert await offered("kill --url http://127.0.0.1:1 -s us", env=env) == ["USR1", "USR2"]


@pytest.mark.asyncio(loop_scope="module")
async def test_handles_are_names_first_and_those_that_the_verb_can_use(env: Env) -> None:
    _, running, _ = await command("run", "-d", "--name", "completed", "shell", "sleep 600", env=env)
    _, ended, _ = await command("run", "-d", "--name", "complete", "shell", "true", env=env)
    await command("wait", "complete", env=env)
    pid, gone = running.decode().strip(), ended.decode().strip()
    assert await offered("logs ", env=env) == ["complete", "completed", pid, gone]
    assert await offered("stop comp", env=env) == ["completed"]
    assert await offered("kill completed ", env=env) == []
    await command("rm", "-f", pid, gone, env=env)


def test_a_server_cannot_put_anything_else_into_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """bash inserts what it is offered as it is."""
    names = ["$(reboot)", "`reboot`", "web;reboot", "-f", "web\nplain", "~", "\x1b]0;x\x07", "web-2"]

    def script(peer: Peer) -> None:
        peer.greet()
        row = {"type": "shell", "command": "make", "args": [], "startTime": 0, "status": "running"}
        rows = [{**row, "pid": pid, "name": name} for pid, name in enumerate(names, 1000)]
        stats = {"totalSpawned": 8, "totalKilled": 0, "active": 8}
        peer.say(type="processList", id=peer.request()["id"], processes=rows, stats=stats)
        peer.until_closed()

    with Scripted(script) as server:
        monkeypatch.setenv("MHNOS_URL", server.url)
        found = handles(click.Context(click.Command("logs")), "", None)
    assert [each.value for each in found] == ["web-2", *(str(pid) for pid in range(1000, 1008))]


@pytest.mark.asyncio(loop_scope="module")
async def test_paths_are_those_of_the_workspace(env: Env, shared: TestServer) -> None:
    await command("ls", env=env)
    app = shared.workspace / "app"
    (app / "deep").mkdir(parents=True)
    for name in ("app/main.py", "app/more.py", "app/.hidden", "app/a name", "app/$(x)", "top.py"):
        (shared.workspace / name).write_text("")
    assert await tab("run python app/", env=env) == (
        ["app/deep/", "app/main.py", "app/more.py"],
        "compopt -o nospace\n",
    )
    assert await offered("run python /app/ma", env=env) == ["/app/main.py"]
    assert await offered("run --cwd app python ma", env=env) == ["main.py"]
    assert await offered("run python top.py app/m", env=env) == ["app/main.py", "app/more.py"]
    assert await offered("run --cwd ap", env=env) == ["app/"]
    assert await offered("run python ../", env=env) == []
    assert await offered("run shell app/", env=env) == [], "a command of a shell is no file"


@pytest.mark.asyncio(loop_scope="module")
async def test_a_colon_leads_into_the_workspace(env: Env, shared: TestServer) -> None:
    """bash makes a word of its own of it, and replaces what is behind it only."""
    await command("ls", env=env)  # a server that has only just started is too slow for a Tab key
    (shared.workspace / "src").mkdir()
    for name in ("main.py", "more.py"):
        (shared.workspace / "src" / name).write_text("")
    assert await offered("cp notes.txt :/src/m", env=env) == ["/src/main.py", "/src/more.py"]
    assert await offered("cp :src/ma", env=env) == ["src/main.py"]
    assert "src/" in await offered("cp x :", env=env)
    for verb in ("ls", "cat", "mv", "edit", "grep x", "rm -r", "rm", "trash restore --to"):
        assert await offered(f"{verb} src/", env=env) == ["src/main.py", "src/more.py"], verb
    assert await offered("cat src/ma", env=env) == ["src/main.py"]
    assert await offered("watch sr", env=env) == ["src/"]


@pytest.mark.asyncio(loop_scope="module")
async def test_without_a_runtime_nothing_is_offered_and_nothing_said(tmp_path: Path) -> None:
    nobody = {"MHNOS_STATE_DIR": str(tmp_path), "MHNOS_URL": "http://127.0.0.1:1"}
    for words in ("logs ", "run python ", "run --cwd ", "cp :"):
        assert await tab(words, env=nobody) == ([], "")
    (tmp_path / "config.toml").write_text("damaged = ")
    assert "shell" in await offered("run ", env={**nobody, "MHNOS_CONFIG": str(tmp_path / "config.toml")})


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(shell: str) -> None:
    text = script(shell)
    assert "_MHNOS_RUNTIME_COMPLETE" in text
    if shell != "fish":
        assert "*/ ]]" in text, "no space comes behind a folder"
