"""Which installed engines processes can run and read. Knows folders and the user of processes; no request."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from mhnos_runtime.config.kinds import ENGINES
from mhnos_runtime.engines import Engine, EngineStore, missing
from mhnos_runtime.errors import StartFailed
from mhnos_runtime.process import template
from mhnos_runtime.sandbox.probe import reachable

#: How long the list of readable folders is good: to look for engines takes some 100 system calls.
LOOK_SECONDS = 1.0


class EngineAccess:
    """user: (uid, gid) of processes; None for the runtime's own."""

    def __init__(self, engines_dir: Path, user: tuple[int, int] | None) -> None:
        self._store = EngineStore(engines_dir)
        self._user = user
        self._folders: tuple[str, ...] = ()
        self._look_again_at = 0.0

    def programs(self, templates: Iterable[str]) -> dict[str, str]:
        """Paths of the programs that templates name as {engine:NAME}, by name. Raises StartFailed
        (engine-missing, not-executable)."""
        programs = {name: self._program(name) for name in template.found(templates, "engine")}
        if programs:
            # One of them may have been installed since the last look.
            self._look_again_at = 0.0
        return programs

    def _program(self, name: str) -> str:
        engine = self._store.find(name)
        if engine is None:
            raise missing(name)
        closed = self._closed(engine)
        if closed:
            raise StartFailed(
                f"{engine.program} is behind {closed}, which the user of processes cannot enter",
                code="not-executable",
                hint="choose another MHNOS_ENGINES_DIR, or let that user into the folder",
            )
        return str(engine.program)

    def _closed(self, engine: Engine) -> str:
        """The folder on the way to an engine that the user of processes cannot enter, or "". The engine's own
        where it has been removed since it was found."""
        try:
            return reachable(engine.program, self._user) if self._user is not None else ""
        except FileNotFoundError:
            return str(engine.folder)

    def folders(self) -> tuple[str, ...]:
        """Folders of all engines, for every process, so that one prepared sandbox fits all of them. Without
        those that the user of processes cannot enter: no sandbox can be made that shows them."""
        now = time.monotonic()
        if now >= self._look_again_at:
            engines = [engine for name in ENGINES if (engine := self._store.find(name)) is not None]
            self._folders = tuple(str(engine.folder) for engine in engines if not self._closed(engine))
            self._look_again_at = now + LOOK_SECONDS
        return self._folders
