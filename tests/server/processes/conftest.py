"""What tests of single modules share: doubles, and processes on real logs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.processes.scene import Link, ManualLoop, Processes


@pytest.fixture
def loop() -> ManualLoop:
    return ManualLoop()


@pytest.fixture
def link() -> Link:
    return Link()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    made = Processes(tmp_path)
    yield made
    made.close()
