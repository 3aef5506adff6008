"""The engines that there really are, from the registry that npm is set up for."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.cli.engine_states import engine_states
from mhnos_runtime.cli.node import find_node
from mhnos_runtime.engines import CATALOGUE, EngineStore
from tests.engines.shared import shared_store

#: seconds for all of them over a slow line; then they stay
INSTALL_TIMEOUT_S = 600


@pytest.fixture(scope="module")
def store() -> EngineStore:
    return shared_store(*CATALOGUE)


def version_told(command: list[Path | str], home: Path) -> str:
    """By the program, as an unprivileged user where that is possible, who cannot write where it is."""
    user: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
    done = subprocess.run(
        [*command, "--version"], cwd="/", env=environment, capture_output=True, text=True, timeout=60, **user
    )
    assert done.returncode == 0, done.stderr
    return str(done.stdout.strip())


@pytest.mark.timeout(INSTALL_TIMEOUT_S)
def test_node(store: EngineStore, tmp_path: Path) -> None:
    engine = store.find("node")
    assert engine is not None
    assert version_told([engine.program], tmp_path) == f"v{engine.version}"
    assert find_node(None, store) == (str(engine.program), "")


@pytest.mark.timeout(INSTALL_TIMEOUT_S)
def test_workerd(store: EngineStore, tmp_path: Path) -> None:
    engine = store.find("workerd")
    assert engine is not None
    day = engine.version.split(".")[1]
    assert version_told([engine.program], tmp_path) == f"workerd {day[:4]}-{day[4:6]}-{day[6:]}"


@pytest.mark.timeout(INSTALL_TIMEOUT_S)
def test_openclaw(store: EngineStore, tmp_path: Path) -> None:
    """Its package asks to be finished at its first start, which nobody could do here."""
    engine = store.find("openclaw")
    assert engine is not None
    node, why_not = find_node(None, store, CATALOGUE["openclaw"].node_range)
    assert node, why_not
    assert engine.version in version_told([node, engine.program], tmp_path)


@pytest.mark.timeout(INSTALL_TIMEOUT_S)
@pytest.mark.parametrize("name", CATALOGUE)
def test_the_space_that_is_asked_for_is_what_is_needed(store: EngineStore, name: str) -> None:
    """While it is made there are the downloads too."""
    engine = store.find(name)
    assert engine is not None
    assert engine.size_bytes * 1.2 < CATALOGUE[name].disk_bytes < engine.size_bytes * 2.5


@pytest.mark.timeout(INSTALL_TIMEOUT_S)
def test_doctor_finds_them(store: EngineStore) -> None:
    assert [(each.name, each.usable) for each in engine_states(store)] == [(name, True) for name in CATALOGUE]


def test_doctor_says_how_to_get_them(tmp_path: Path) -> None:
    facts = {each.name: each.fact() for each in engine_states(EngineStore(tmp_path / "none"))}
    for name in ("workerd", "openclaw"):
        assert not facts[name].found
        assert facts[name].how == f"mhnos-runtime engines install {name}"
