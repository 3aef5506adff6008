"""Installed engines, found by their marker, which is written last. Only reads; starts nothing."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from mhnos_runtime.engines.catalogue import CATALOGUE, Spec
from mhnos_runtime.errors import StartFailed

#: A file that complete installations have, and no others.
MARKER = "engine.json"


@dataclass(frozen=True, slots=True)
class Engine:
    """A complete installation. folder: contains all of it; a sandbox shows it read-only. program: bin/node,
    the workerd binary, or the script of OpenClaw for Node.js."""

    name: str
    version: str
    folder: Path
    program: Path
    size_bytes: int = 0
    installed_at: float = 0.0


class EngineStore:
    """Installations below one folder: NAME/VERSION-MACHINE-DIGEST. machine: as in `uname -m`."""

    def __init__(
        self,
        engines_dir: Path,
        *,
        machine: str = "",
        catalogue: dict[str, Spec] | None = None,
    ) -> None:
        self.folder = engines_dir
        self.machine = machine or platform.machine()
        self.catalogue = CATALOGUE if catalogue is None else catalogue

    def find(self, name: str) -> Engine | None:
        """The pinned version if it is installed, else the newest other one, else None. Never an incomplete
        one, one for another machine, or one that another user could have put there."""
        pinned = self.pinned_folder(name)
        complete = self.versions(name)
        return next((each for each in complete if each.folder == pinned), next(iter(complete), None))

    def versions(self, name: str) -> list[Engine]:
        """Every complete installation, the latest first."""
        if self.distrusted():
            return []
        try:
            entries = [self.folder / name / each for each in os.listdir(self.folder / name)]
        except OSError:
            return []
        found = [engine for entry in entries if (engine := self._read(name, entry)) is not None]
        return sorted(found, key=lambda engine: engine.installed_at, reverse=True)

    def is_current(self, engine: Engine) -> bool:
        """Whether it is the version that this runtime pins."""
        return engine.folder == self.pinned_folder(engine.name)

    def pinned_folder(self, name: str) -> Path:
        """The folder of the pinned version, installed or not."""
        spec = self.catalogue[name]
        return self.folder / name / f"{spec.version}-{self.machine}-{spec.digest}"

    def distrusted(self) -> str:
        """Why nothing in the folder may be started, or ""."""
        try:
            status = self.folder.stat()
        except OSError:
            return ""
        if status.st_uid not in (os.geteuid(), 0) or status.st_mode & 0o022:
            return f"engines_dir {self.folder} can be written by other users"
        return ""

    def _read(self, name: str, folder: Path) -> Engine | None:
        try:
            marker = json.loads((folder / MARKER).read_text())
            program = folder / marker["program"]
            status = program.stat()
            fits = (marker["name"], marker["machine"]) == (name, self.machine)
            if not fits or status.st_size != marker["programBytes"]:
                return None
            size, at = int(marker["sizeBytes"]), float(marker["installedAt"])
            return Engine(name, str(marker["version"]), folder, program, size, at)
        except (OSError, ValueError, KeyError, TypeError):
            return None


def missing(name: str, why: str = "") -> StartFailed:
    """The error of a start that needs an engine which is not installed. why: a better reason, if known."""
    return StartFailed(
        why or f"{CATALOGUE[name].title} is not installed",
        code="engine-missing",
        hint=f"mhnos-runtime engines install {name}",
    )
