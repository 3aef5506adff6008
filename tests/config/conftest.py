"""Fixtures for tests of settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mhnos_runtime.config import sources, table


def write_config(env: dict[str, str], text: str) -> Path:
    """The settings file of a home."""
    file = Path(env["HOME"]) / ".config/mhnos-runtime/config.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A home with nothing in it, on a machine without /workspace and /etc/mhnos-runtime."""
    monkeypatch.setattr(table, "CONTAINER_WORKSPACE", tmp_path / "no-workspace")
    monkeypatch.setattr(sources, "SYSTEM_CONFIG", tmp_path / "etc.toml")
    home = tmp_path / "home"
    home.mkdir()
    return {"HOME": str(home)}


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Tests of permissions mean nothing to root, who passes them all."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    yield
    os.seteuid(was)
