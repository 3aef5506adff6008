"""The real engines, installed once for all tests of a machine. Knows the command line alone."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

from mhnos_runtime.engines import EngineStore
from mhnos_runtime.sandbox.probe import probe


def shared_folder() -> Path:
    """MHNOS_TEST_ENGINES, else a cache that users of processes can enter, and that no process can write."""
    chosen = os.environ.get("MHNOS_TEST_ENGINES")
    if chosen:
        return Path(chosen)
    cache = Path("/var/cache") if os.geteuid() == 0 else Path.home() / ".cache"
    return cache / "mhnos-runtime-tests" / "engines"


def shared_store(*names: str) -> EngineStore:
    """A store that has these engines at their pinned versions. Tests must not change it."""
    store = EngineStore(shared_folder())
    store.folder.parent.mkdir(parents=True, exist_ok=True)
    with open(store.folder.parent / "lock", "w") as turn:
        # One of the tests that run side by side installs, the others wait.
        fcntl.flock(turn, fcntl.LOCK_EX)
        command = [sys.executable, "-m", "mhnos_runtime", "engines", "install"]
        if not probe(None).namespaces:
            command.append("--no-sandbox")
        done = subprocess.run(
            [*command, "--engines-dir", str(store.folder), *names], capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr
    return store
