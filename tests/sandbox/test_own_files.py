"""A runtime whose own files processes could change does not start, and does not take over. A process at level
strict rewrote the runtime that was installed in its workspace, and a reload ran that under no sandbox."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mhnos_runtime
from mhnos_runtime.sandbox.facts import HostFacts
from mhnos_runtime.testing import TestServer
from tests.sandbox.conftest import require
from tests.server.client import connect, eventually

SITE = next(path for path in sys.path if path.endswith("site-packages"))


def venv(folder: Path) -> Path:
    """An environment with this runtime, as `pip install` makes one; returns its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    source = Path(mhnos_runtime.__file__).parents[1]
    (site / "here.pth").write_text(f"{SITE}\n{source}\n")
    return folder / "bin" / "python"


def serve(
    folder: Path, *flags: str, python: Path | None = None, variables: dict[str, str] | None = None
) -> str:
    """What a start says that must fail."""
    (folder / "workspace").mkdir(exist_ok=True)
    own = ("--port", "0", "--workspace", str(folder / "workspace"), "--state-dir", str(folder / "state"))
    done = subprocess.run(
        [python or sys.executable, "-P", "-m", "mhnos_runtime", "serve", *own, *flags],
        env={**os.environ, **(variables or {})},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stderr


def test_the_runtime_in_its_own_workspace(folder: Path, level: str) -> None:
    python = venv(folder / "workspace" / ".venv")
    if level == "none" and os.geteuid() != 0:
        pytest.skip("nothing keeps processes of the same user from it")
    said = serve(folder, "--sandbox", level, python=python)
    assert f"interpreter {python} lies in workspace {folder / 'workspace'}" in said
    assert "uv tool install mhnos-runtime" in said
    assert "pipx install mhnos-runtime" in said
    assert "MHNOS_WORKSPACE" in said
    assert not (folder / "state" / "server.json").exists()


def test_what_else_may_not_lie_in_the_workspace(folder: Path, facts: HostFacts) -> None:
    require(facts, "strict")
    work = folder / "workspace"
    work.mkdir()
    for name in ("cert.pem", "key.pem"):
        (work / name).touch()
    (work / "config.toml").touch()
    (work / "modules").mkdir()
    bin_ = work / "bin"
    bin_.mkdir()
    (bin_ / "node").write_text(f"#!/bin/sh\ntouch {folder}/executed\n")
    (bin_ / "node").chmod(0o755)
    (folder / "link").symlink_to(work / "hidden")
    tls = ("--tls-cert", str(work / "cert.pem"), "--tls-key", str(work / "key.pem"))
    cases: list[tuple[tuple[str, ...], dict[str, str], str, str]] = [
        (("--state-dir", str(work / "state")), {}, "state_dir", "MHNOS_STATE_DIR"),
        (("--state-dir", str(folder / "link" / "s")), {}, "state_dir", "MHNOS_STATE_DIR"),
        (("--engines-dir", str(work / "engines")), {}, "engines_dir", "MHNOS_ENGINES_DIR"),
        (("--config", str(work / "config.toml")), {}, "config file", "--config"),
        # Not there yet: a process would make it.
        ((), {"XDG_CONFIG_HOME": str(work)}, "config file", "--config"),
        (tls, {}, "tls_cert", "move it"),
        ((), {"PYTHONPATH": str(work / "modules")}, "folder of modules", "uv tool install"),
        ((), {"PATH": f"{bin_}:{os.environ['PATH']}"}, "program node", "uv tool install"),
    ]
    for flags, variables, what, way_out in cases:
        said = serve(folder, *flags, variables=variables)
        assert f"mhnos-runtime: {what} " in said
        assert f"lies in workspace {work}" in said
        assert way_out in said
    assert not (folder / "executed").exists()


@pytest.mark.parametrize("level", ["strict", "relaxed", "none"])
def test_a_state_directory_in_the_workspace_is_refused_at_every_level(
    folder: Path, facts: HostFacts, level: str
) -> None:
    require(facts, level)
    root = ("--allow-root",) if level == "none" and os.geteuid() == 0 else ()
    said = serve(folder, "--sandbox", level, *root, "--state-dir", str(folder / "workspace" / "state"))
    assert f"state_dir {folder / 'workspace' / 'state'} lies in workspace" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has processes of another user")
def test_at_none_nothing_that_another_user_can_write(folder: Path) -> None:
    """There processes reach the whole machine, and only owners and modes keep them from it."""
    (folder / "open").mkdir(mode=0o755)
    (folder / "open").chmod(0o777)
    said = serve(folder, "--sandbox", "none", "--engines-dir", str(folder / "open" / "engines"))
    assert f"engines_dir {folder / 'open' / 'engines'} is open to the user of processes" in said


def test_doctor_tells_of_own_files_and_token(folder: Path, facts: HostFacts) -> None:
    require(facts, "strict")
    work, state = folder / "workspace", folder / "state"
    for each in (work, state):
        each.mkdir(mode=0o700)
    (state / "token").write_text("x" * 43)
    (state / "token").chmod(0o644)
    python = venv(work / ".venv")
    own = {"MHNOS_WORKSPACE": str(work), "MHNOS_STATE_DIR": str(state), "MHNOS_SANDBOX": "strict"}

    def told(python: str | Path) -> tuple[int, dict[str, dict[str, object]]]:
        command = [python, "-P", "-m", "mhnos_runtime", "doctor", "--json"]
        done = subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True, cwd="/")
        return done.returncode, {row["name"]: row for row in json.loads(done.stdout)["facts"]}

    code, rows = told(python)
    assert code == 1
    assert not rows["own files"]["found"]
    assert str(rows["own files"]["detail"]).startswith(f"interpreter {python} lies in workspace {work}")
    assert "uv tool install" in str(rows["own files"]["how"])
    assert not rows["token"]["found"]
    assert "can be read by others" in str(rows["token"]["detail"])
    assert "token --rotate" in str(rows["token"]["how"])
    (state / "token").chmod(0o600)
    code, rows = told(sys.executable)
    assert code == 0
    assert rows["own files"]["found"]
    assert rows["token"]["found"]


async def test_a_version_that_processes_could_change_does_not_take_over(
    folder: Path, facts: HostFacts
) -> None:
    require(facts, "strict")
    python = venv(folder / "venv")
    server = TestServer(folder / "server", "--sandbox", "strict")
    server.python = str(python)
    async with server, connect(server) as client:
        pid = await client.spawn("shell", "read line; echo $line", pty=False)
        await asyncio.to_thread((folder / "venv").rename, server.workspace / "venv")
        (folder / "venv").symlink_to(server.workspace / "venv")
        supervisor = server.pid
        os.kill(supervisor, 1)

        async def refused() -> bool:
            return "not reloaded" in server.log.read_text()

        await eventually(refused)
        lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
        said = [line for line in lines if line["level"] == "error"]
        assert said[0]["problem"].startswith(f"interpreter {python} lies in workspace {server.workspace} by ")
        assert said[1]["msg"] == "not reloaded: processes could change the installed version; all runs on"
        await client.send("write", pid=pid, data="went on\n")
        assert (await client.exit(pid))["code"] == 0
        assert client.output(pid) == "went on\n"
