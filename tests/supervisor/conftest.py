"""A supervisor and its first server for each test that asks. Knows the harness only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.supervisor.harness import Server, Supervised, supervised


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervised]:
    with supervised(tmp_path) as running:
        yield running


@pytest.fixture
def server(supervisor: Supervised) -> Server:
    return supervisor.serve()
