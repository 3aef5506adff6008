"""Measures which branches run: as a plugin of pytest in each process that runs tests, and, executed by its
path, in each server that they start. Knows coverage.py and how a server starts, no module of the project."""

from __future__ import annotations

import atexit
import os
import sys
from pathlib import Path
from typing import Any

from coverage import Coverage

#: The modules that have floors.
PACKAGES = ("mhnos_runtime.client", "mhnos_runtime.server")
#: The environment variable with the folder for the data of all processes.
FOLDER = "COVERAGE_GATE_FOLDER"
#: How a server is told from the other Pythons, which are not measured: to begin costs each 0.1 s.
SERVER = "mhnos_runtime.server"


def measurement(folder: Path) -> Coverage:
    """Of this process. Each process has a file of its own in the folder."""
    data = str(folder / "data")
    return Coverage(data, data_suffix=True, branch=True, source_pkgs=PACKAGES, config_file=False)


def begin() -> None:
    """Measure from now on to the end of this process."""
    measured = measurement(Path(os.environ[FOLDER]))
    # Many a process sees nothing of the packages.
    measured.set_option("run:disable_warnings", ["module-not-imported", "no-data-collected"])
    measured.start()
    atexit.register(_end, measured)
    if SERVER in sys.orig_argv:
        _save_in_time(measured)


def _end(measured: Coverage) -> None:
    measured.stop()
    measured.save()


def _save_in_time(measured: Coverage) -> None:
    """Once a server's channel is closed, the supervisor kills it: what waits for its exit is lost."""
    import uvloop

    run = uvloop.run

    def run_and_save(main: Any) -> Any:
        try:
            return run(main)
        finally:
            atexit.unregister(_end)
            _end(measured)

    uvloop.run = run_and_save  # type: ignore[assignment]


# Once a process, however often site reads the hook.
if os.environ.get(FOLDER) and Coverage.current() is None:
    begin()
