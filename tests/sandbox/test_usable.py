"""What has to work inside the levels all the same: a sandbox that nobody can work in is switched off."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mhnos_runtime.sandbox import HostFacts
from mhnos_runtime.testing import TestServer
from tests.sandbox.conftest import require
from tests.server.client import Client, connect


@asynccontextmanager
async def serving(folder: Path, level: str, *flags: str) -> AsyncIterator[tuple[TestServer, Client]]:
    flags = ("--sandbox", level, "--kill-grace-seconds", "1", *flags)
    async with TestServer(folder / "server", *flags) as server, connect(server) as client:
        yield server, client


async def said(client: Client, command: str, **options: object) -> str:
    pid = await client.run(command, **options)
    await client.exit(pid)
    return client.output(pid).strip()


async def test_scripts_by_every_kind_of_path(level: str, folder: Path) -> None:
    async with serving(folder, level) as (server, client):
        (server.workspace / "sub").mkdir()
        (server.workspace / "sub" / "a.js").write_text("console.log(__dirname, process.cwd(), 6 * 7)")
        (server.workspace / "sub" / "a.py").write_text("import os; print(__file__, os.getcwd(), 6 * 7)")
        for kind, script in (("node", "a.js"), ("python", "a.py")):
            for command, cwd in (
                (script, "/sub"),
                (f"/sub/{script}", "/"),
                (f"/workspace/sub/{script}", "/"),
            ):
                pid = await client.spawn(kind, command, pty=False, options={"cwd": cwd})
                ended = await client.exit(pid)
                text = client.output(pid)
                assert (ended["code"], text.split()[-1:]) == (0, ["42"]), text
                assert (str(server.workspace) in text) is (level != "strict")


async def test_the_place_and_its_variables(level: str, folder: Path) -> None:
    async with serving(folder, level) as (server, client):
        home = "/workspace" if level == "strict" else str(server.workspace)
        assert (await said(client, "pwd; echo $HOME; cd; pwd")).split() == [home] * 3
        assert await said(client, "touch made && ls", options={"cwd": "/"}) == "made"
        assert (server.workspace / "made").exists()
        assert await said(client, "f=${TMPDIR:-/tmp}/file-$$; echo x > $f && cat $f && rm $f") == "x"


async def test_what_clients_push_belongs_to_processes(level: str, folder: Path) -> None:
    async with serving(folder, level) as (_, client):
        content = list(b"old\n")
        await client.ask("fsync", operation="push", files=[{"path": "/d/f.txt", "content": content}])
        assert await said(client, "echo new >> d/f.txt && cat d/f.txt && rm -r d && ls") == "old\nnew"


async def test_a_terminal_is_one(level: str, folder: Path) -> None:
    async with serving(folder, level) as (_, client):
        pid = await client.spawn("shell", "bash", pty={"cols": 177, "rows": 22})
        await client.send(
            "write", pid=pid, data="stty size; test -w $(tty) && echo at-$(tty); echo x > /dev/tty\r"
        )
        await client.text(pid, "22 177")
        await client.text(pid, "at-/dev/pts/")
        await client.send("resize", pid=pid, cols=199, rows=33)
        # The shell may undo it for a moment, see Runtime.resize.
        until = "until [ \"$(stty size)\" = '33 199' ]; do :; done; stty size\r"
        await client.send("write", pid=pid, data=until)
        await client.text(pid, "33 199\r\n")
        # Job control: Ctrl-Z stops the foreground job, and the shell goes on.
        await client.send("write", pid=pid, data="sh -c 'echo job-$((20 + 1)); exec sleep 100'\r")
        await client.text(pid, "job-21")
        await client.send("write", pid=pid, data="\x1a")
        await client.text(pid, "Stopped")
        await client.send("write", pid=pid, data="kill %1; echo go-$((40 + 2))\r")
        await client.text(pid, "go-42")
        # Ctrl-C reaches the program, not what holds the sandbox.
        await client.send("write", pid=pid, data="sh -c 'echo job-$((30 + 1)); exec sleep 100'\r")
        await client.text(pid, "job-31")
        await client.send("write", pid=pid, data="\x03")
        await client.send("write", pid=pid, data="echo still-$((1 + 1))\r")
        await client.text(pid, "still-2")
        await client.send("write", pid=pid, data="exit 3\r")
        assert (await client.exit(pid))["code"] == 3


async def test_node_resolves_scripts_as_it_always_does(level: str, folder: Path) -> None:
    async with serving(folder, level) as (server, client):
        home = "/workspace" if level == "strict" else str(server.workspace)
        app = server.workspace / "app"
        (app / "lib").mkdir(parents=True)
        (app / "package.json").write_text('{"main": "lib/start"}')
        for path in (app / "server.js", app / "lib" / "start.js", app / "lib" / "index.js"):
            path.write_text("console.log(__filename)")
        for command, found in (
            ("server", "/app/server.js"),
            ("/app/server", "/app/server.js"),
            ("/app", "/app/lib/start.js"),
            ("lib", "/app/lib/index.js"),
        ):
            pid = await client.spawn("node", command, pty=False, options={"cwd": "/app"})
            assert (await client.exit(pid))["code"] == 0, client.output(pid)
            assert client.output(pid).strip() == home + found
        pid = await client.spawn("node", "none", pty=False, options={"cwd": "/app"})
        assert (await client.exit(pid))["code"] == 1
        assert f"Cannot find module '{home}/app/none'" in client.output(pid)


async def test_node_in_a_shell_is_that_of_the_kind(level: str, folder: Path) -> None:
    async with serving(folder, level) as (_, client):
        pid = await client.spawn("node", "-p", "process.execPath + process.version", pty=False)
        await client.exit(pid)
        assert (
            await said(client, "node -p 'process.execPath + process.version'") == client.output(pid).strip()
        )
        assert (await said(client, "npm --version")).count(".") == 2


async def test_a_virtual_environment_that_is_made_inside(level: str, folder: Path) -> None:
    """`run python` once ran the system's Python, where pip refuses (PEP 668)."""
    async with serving(folder, level) as (server, client):
        home = "/workspace" if level == "strict" else str(server.workspace)
        (server.workspace / "src").mkdir()
        assert await said(client, "python3 -m venv .venv && .venv/bin/pip --version | cut -c 1-4") == "pip"
        (server.workspace / "main.py").write_text(
            "import subprocess, sys\nprint(sys.prefix, flush=True)\nsubprocess.run(['pip', '--version'])\n"
        )
        prefixes = []
        for options in ({"cwd": "/"}, {"cwd": "/src"}, {"cwd": "/", "env": {"VIRTUAL_ENV": ""}}):
            pid = await client.spawn("python", "/main.py", pty=False, options=options)
            assert (await client.exit(pid))["code"] == 0
            prefix, *pip = client.output(pid).splitlines()
            prefixes.append(prefix)
            assert any(f"{home}/.venv/" in line for line in pip) is (prefix == f"{home}/.venv")
        assert prefixes[:2] == [f"{home}/.venv"] * 2
        assert prefixes[2] != f"{home}/.venv"


async def test_a_virtual_environment_that_was_made_on_the_host(level: str, folder: Path) -> None:
    """Its scripts name their Python by the host's path of the workspace."""
    system = shutil.which("python3", path="/usr/bin:/bin")
    if system is None:
        pytest.skip("the system has no Python")
    async with serving(folder, level) as (server, _):
        await asyncio.to_thread(venv_by, system, server.workspace / "venv")
        assert str(server.workspace) in (server.workspace / "venv" / "bin" / "pip").read_text()
        # A connection that nobody reads for so long as that may take is given up by the server.
        async with connect(server) as client:
            assert (await said(client, "venv/bin/pip --version")).startswith("pip ")


async def test_strict_shows_nothing_beside_the_way_to_the_workspace(folder: Path, facts: HostFacts) -> None:
    require(facts, "strict")
    (folder / "neighbour").mkdir()
    async with serving(folder, "strict") as (server, client):
        assert await said(client, f"touch a && ls {server.workspace}") == "a"
        for parent, name in ((folder, "server"), (folder / "server", "workspace")):
            assert await said(client, f"ls -A {parent}") == name
            assert not await said(client, f"touch {parent}/x 2>/dev/null && echo written")


async def test_an_interpreter_outside_is_named(level: str, folder: Path) -> None:
    async with serving(folder, level) as (server, client):
        hidden = folder / "python" / "python3"
        hidden.parent.mkdir()
        shutil.copy("/bin/sh", hidden)
        programs = server.workspace / "venv" / "bin"
        programs.mkdir(parents=True)
        (programs / "python3").symlink_to(hidden)
        (programs / "pip").write_text(f"#!{programs}/python3\n")
        (programs / "pip").chmod(0o755)
        (server.workspace / "venv" / "pyvenv.cfg").touch()
        for kind, command in (("python", "-V"), ("shell", "venv/bin/pip")):
            answer = await client.ask("spawn", processType=kind, command=command, pty=False)
            assert (answer["type"] == "error") is (level != "none")
            if level != "none":
                assert str(hidden) in answer["error"]


def venv_by(python: str, folder: Path) -> None:
    subprocess.run([python, "-m", "venv", folder], check=True, capture_output=True)


async def test_words_of_a_shell(level: str, folder: Path) -> None:
    async with serving(folder, level) as (server, client):
        (server.workspace / "dir").mkdir()
        (server.workspace / "dir" / "a b").touch()
        for words, output, code in (
            (("ls", "dir"), "a b", 0),
            (("ls", "dir/a b"), "dir/a b", 0),
            (("--", "ls dir"), "a b", 0),
            (("-c", 'ls "$1"', "x", "dir"), "a b", 0),
            (("nosuch-program", "x"), "", 127),
        ):
            command, *args = words
            pid = await client.spawn("shell", command, *args, pty=False)
            assert (await client.exit(pid))["code"] == code
            assert code or client.output(pid).strip() == output


async def test_a_folder_that_is_not_there(level: str, folder: Path) -> None:
    """A command once ran in the workspace itself instead: think of `rm -rf *`."""
    async with serving(folder, level) as (server, client):
        (server.workspace / "precious").touch()
        answer = await client.ask("spawn", processType="shell", command="rm *", options={"cwd": "/none"})
        assert (answer["type"], answer["code"]) == ("error", "not-found")
        pid = await client.spawn("shell", options={"cwd": "/none"})
        await client.text(pid, "/none does not exist; starting in /")
        assert (server.workspace / "precious").exists()


async def test_missing_programs_are_told_at_the_start(level: str, folder: Path) -> None:
    async with serving(folder, level) as (server, client):
        (server.workspace / "not-executable").write_text("x")
        answer = await client.ask("spawn", processType="python", command="missing.py", options={"cwd": "/"})
        assert (answer["type"], answer["code"]) == ("error", "not-found")


async def test_certificates_names_and_users(level: str, folder: Path) -> None:
    async with serving(folder, level) as (_, client):
        if Path("/etc/ssl/certs/ca-certificates.crt").exists():
            assert int(await said(client, "wc -l < /etc/ssl/certs/ca-certificates.crt")) > 100
        assert await said(client, "getent hosts localhost | grep -c localhost") == "1"
        if level == "strict":
            assert await said(
                client, "id -un; id -gn; hostname 2>/dev/null || cat /proc/sys/kernel/hostname"
            ) == ("mhnos\nmhnos\nmhnos")


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not on this machine")
async def test_git_works(level: str, folder: Path) -> None:
    async with serving(folder, level) as (_, client):
        commands = "git init -q r && cd r && echo x > f && git add f && git -c user.name=a -c user.email=a@b"
        assert await said(client, f"{commands} commit -qm m && git log --oneline | wc -l") == "1"


async def test_processes_of_one_workspace_reach_each_other_over_loopback(folder: Path, facts: object) -> None:
    """Each is in a sandbox of its own, and still they share one network."""
    async with serving(folder, "strict", "--network", "loopback") as (server, client):
        (server.workspace / "serve.py").write_text(
            "import socket\ns = socket.create_server(('127.0.0.1', 8000))\nprint('up', flush=True)\n"
            "while True:\n    c = s.accept()[0]\n    c.sendall(b'hello')\n    c.close()\n"
        )
        (server.workspace / "ask.py").write_text(
            "import socket, sys\n"
            "print(socket.create_connection(('127.0.0.1', int(sys.argv[1])), 3).recv(9))\n"
        )
        listening = await client.spawn("python", "serve.py")
        await client.text(listening, "up")
        pid = await client.spawn("python", "ask.py", "8000")
        await client.exit(pid)
        assert client.output(pid).strip() == "b'hello'"
        alone = await client.spawn("python", "ask.py", "8000", network="none")
        assert (await client.exit(alone))["code"] == 1
        port = server.url.rsplit(":", 1)[1]
        outward = await client.spawn("python", "ask.py", port, network="host")
        assert (await client.exit(outward))["code"] == 1


async def test_a_network_that_a_level_cannot_give_is_refused(level: str, folder: Path) -> None:
    async with serving(folder, level) as (_, client):
        answer = await client.ask("spawn", processType="shell", command="true", network="loopback")
        assert (answer["type"] == "spawned") is (level == "strict")
        answer = await client.ask("spawn", processType="shell", command="true", network="everything")
        assert (answer["type"], answer["code"]) == ("error", "invalid-argument")


async def test_a_dry_run_tells_what_a_start_then_does(level: str, folder: Path) -> None:
    async with serving(folder, level) as (server, client):
        (server.workspace / "sub").mkdir()
        command = [
            "run",
            "--dry-run",
            "--cwd",
            "/sub",
            "--limit",
            "memory_bytes=64m",
            "--limit",
            "open_files=99",
        ]
        told = json.loads(await by_command_line(server, *command, "shell", "ulimit -n; pwd; env"))
        assert (await client.ask("list", all=True))["processes"] == []
        plan, isolation = told["plan"], told["isolation"]
        assert (plan["argv"][1:3], told["directory"]) == (["-c", "ulimit -n; pwd; env"], "/sub")
        assert plan["confine"]["limits"]["memory_bytes"] == 64 << 20
        assert (plan["confine"]["holder"] is not None) is (level == "strict")
        assert bool(plan["confine"]["seccomp"]) is isolation["seccomp"] is (level != "none")
        spawned = await by_command_line(server, "run", *command[2:], "shell", "ulimit -n; pwd; env")
        limit, place, *environment = spawned.splitlines()
        assert (limit, place.endswith("/sub")) == ("99", True)
        assert {f"{name}={value}" for name, value in plan["env"].items()} <= set(environment)
        (row,) = (await client.ask("list", all=True))["processes"]
        assert row["isolation"] == isolation


async def by_command_line(server: TestServer, *words: str) -> str:
    environment = {**os.environ, "MHNOS_STATE_DIR": str(server.state_dir)}
    command = [sys.executable, "-m", "mhnos_runtime", *words]
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()
