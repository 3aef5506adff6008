"""Installed engines: programs that kinds need and the system does not bring. Knows their folders."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from mhnos_runtime.errors import StartFailed


@dataclass(frozen=True, slots=True)
class Engine:
    """folder: what a sandbox has to show of it, read-only. program: what is executed, or Node.js's script."""

    name: str
    version: str
    folder: Path
    program: Path


class EngineStore:
    """The engines in one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def find(self, name: str) -> Engine | None:
        folder = self._directory / name
        try:
            told = json.loads((folder / "engine.json").read_text(encoding="utf-8"))
            return Engine(name, told["version"], folder, folder / told["program"])
        except (OSError, ValueError, KeyError):
            return None


def missing(name: str) -> StartFailed:
    return StartFailed(
        f"the engine {name} is not installed",
        code="engine-missing",
        hint=f"mhnos-runtime engines install {name}",
    )
