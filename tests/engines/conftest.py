"""A registry of made-up packages, and a store that npm fills from it. Knows no particular engine."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mhnos_runtime.cli.confined import confined as as_whom
from mhnos_runtime.cli.node import find_npm
from mhnos_runtime.engines import Engine, EngineStore, Spec
from mhnos_runtime.engines.change import Change
from mhnos_runtime.engines.confined import Confined
from mhnos_runtime.sandbox.probe import probe
from tests.engines.registry import Registry


@pytest.fixture(scope="session")
def npm() -> tuple[str, ...]:
    command, why_not = find_npm()
    assert command, why_not
    return command


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """Where npm gets everything from, for this test and what it starts."""
    with Registry() as serving:
        monkeypatch.setenv("npm_config_registry", serving.url)
        yield serving


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that other users can enter, unlike tmp_path."""
    parent = Path("/var/lib") if os.geteuid() == 0 else Path(tempfile.gettempdir())
    folder = Path(tempfile.mkdtemp(prefix="mhnos-tests-", dir=parent))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def can_sandbox() -> bool:
    return probe(None).namespaces


@pytest.fixture
def confined(can_sandbox: bool) -> Iterator[Confined | None]:
    """As whom npm runs here: where root cannot be given a sandbox, as the user of its own alone."""
    with as_whom(can_sandbox) as whom:
        yield whom


@pytest.fixture
def install(npm: tuple[str, ...], confined: Confined | None) -> Callable[..., Engine]:
    """Install an engine in a folder by the catalogue that has it alone."""

    def do(spec: Spec, folder: Path, stall_seconds: float = 30, machine: str = "") -> Engine:
        with Change(EngineStore(folder, machine=machine, catalogue={spec.name: spec}), confined) as change:
            return change.install(spec.name, npm, stall_seconds=stall_seconds)

    return do
