"""A scene for each test. Knows nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from mhnos_runtime import config
from mhnos_runtime.config import Settings
from mhnos_runtime.server.connections import websocket
from tests.server.connections.scene import Scene


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "workspace").mkdir()
    flags = {"workspace": str(tmp_path / "workspace"), "state_dir": str(tmp_path), "sandbox": "none"}
    return config.load(flags, {"HOME": str(tmp_path)})[0]


@pytest_asyncio.fixture
async def scene(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    # Whatever the machine does, what comes in one piece is taken in one turn of the event loop.
    monkeypatch.setattr(websocket, "TURN_SECONDS", 1000.0)
    made = Scene(tmp_path, settings)
    try:
        yield made
    finally:
        await made.close()
