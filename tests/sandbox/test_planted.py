"""A runtime that was started in its workspace imports nothing that processes put there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mhnos_runtime import title

PROGRAM = Path(sys.executable).with_name("mhnos-runtime")
PLANTED = "import os\nopen(os.path.join({folder!r}, 'imported'), 'a').write(__name__)\nraise SystemExit(1)\n"
MODULES = ("mhnos_runtime", "uvloop", "msgspec", "aiohttp", "json", "sitecustomize")
WAIT_S = "40"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """The folder of a runtime that serves, started in its workspace with nothing planted yet."""
    for name in ("workspace", "state"):
        (tmp_path / name).mkdir(mode=0o700)
    env = variables(tmp_path)
    with (tmp_path / "log").open("wb") as log:
        serving = subprocess.Popen(
            [PROGRAM, "serve"], cwd=tmp_path / "workspace", env=env, stdout=log, stderr=log
        )
    try:
        ask(tmp_path, "health", "--wait", WAIT_S)
        yield tmp_path
    finally:
        serving.send_signal(signal.SIGTERM)
        serving.wait(30)


def variables(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MHNOS_", "PYTHON"))}
    own = {"MHNOS_WORKSPACE": str(home / "workspace"), "MHNOS_STATE_DIR": str(home / "state")}
    level = {"MHNOS_SANDBOX": "none", "MHNOS_ALLOW_ROOT": str(os.geteuid() == 0).lower()}
    return {**kept, **own, **level, "MHNOS_RUNTIME_PORT": "0"}


def ask(home: Path, *args: str) -> str:
    """The command line, in a folder where nothing is planted."""
    done = subprocess.run([PROGRAM, *args], cwd="/", env=variables(home), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + (home / "log").read_text()
    return done.stdout


@pytest.mark.timeout(120)
def test_neither_the_next_server_nor_the_next_version_imports_from_the_workspace(home: Path) -> None:
    """`python -m` looks in the working directory first, so a process could become the server's code."""
    for name in MODULES:
        (home / "workspace" / f"{name}.py").write_text(PLANTED.format(folder=str(home)))
    supervisor = json.loads((home / "state" / "server.json").read_text())["pid"]
    before = server_of(supervisor)
    os.kill(before, signal.SIGKILL)
    end = time.monotonic() + float(WAIT_S)
    while server_of(supervisor) in (0, before):
        assert time.monotonic() < end
        time.sleep(0.01)
    ask(home, "health", "--wait", WAIT_S)
    ask(home, "reload", "--wait", f"{WAIT_S}s")
    assert not (home / "imported").exists()


def server_of(supervisor: int) -> int:
    for child in Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split():
        if title.has(int(child), title.SERVER):
            return int(child)
    return 0
