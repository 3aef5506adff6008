"""The runtime on this machine that uses a state directory: whether it runs, and its health. Stops nothing."""

from __future__ import annotations

import http.client
import json
import os
import shlex
import shutil
import ssl
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mhnos_runtime import title
from mhnos_runtime.client.discovery import default_state_dir
from mhnos_runtime.errors import MhnosError

#: What `serve` leaves in the state directory for clients of this machine.
FILE = "server.json"
TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class Running:
    """os_pid: the supervisor's. state_version: of what it hands over at a reload, None if it says none."""

    os_pid: int
    url: str
    state_version: object = None


def state_dir(chosen: str | None) -> Path:
    """The one of the settings, unless another is chosen. Raises ConfigError."""
    from mhnos_runtime.config import load

    return load({"state_dir": chosen} if chosen else {})[0].state_dir


def find(folder: Path) -> Running | None:
    """None where none runs, also where a crash left the file behind and its pid is somebody else's by now."""
    try:
        facts = json.loads((folder / FILE).read_text())
        found = Running(int(facts["pid"]), str(facts["url"]), facts.get("stateVersion"))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if title.has(found.os_pid, title.SUPERVISOR) else None


def require(folder: Path) -> Running:
    """As `find`. Raises MhnosError where none runs."""
    if (found := find(folder)) is None:
        raise none_runs(folder)
    return found


def none_runs(folder: Path) -> MhnosError:
    return MhnosError(
        f"no runtime uses {folder}",
        hint="`mhnos-runtime serve` starts one; --state-dir or MHNOS_STATE_DIR names another",
    )


def ask_health(url: str) -> dict[str, Any]:
    """What the server at `url` says of itself. Raises OSError, HTTPException or ValueError."""
    # The certificate is for the name that clients use, not for this address; nothing secret is sent.
    trust = ssl._create_unverified_context() if url.startswith("https:") else None  # noqa: S323
    handlers = [urllib.request.HTTPSHandler(context=trust)] if trust else []
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), *handlers)
    with opener.open(f"{url}/health", timeout=TIMEOUT_S) as response:
        body: dict[str, Any] = json.load(response)
    return body


def health_of(folder: Path) -> dict[str, Any]:
    """The answer of the runtime that uses this folder. Raises MhnosError that says what to do.

    The file's address is asked even where no supervisor is seen: that may be in another PID namespace.
    """
    try:
        url = str(json.loads((folder / FILE).read_text())["url"])
        return ask_health(url)
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        found = find(folder)
        if found is None:
            raise none_runs(folder) from error
        raise MhnosError(
            f"the runtime at {found.url} (pid {found.os_pid}) does not answer: {_in_words(error)}",
            hint="it may be starting or busy: --wait 10 asks again; else its log says why",
        ) from error


def _in_words(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code}"
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return f"nothing came within {TIMEOUT_S:.0f} s"
    strerror = getattr(reason, "strerror", None)
    return str(strerror) if strerror else "what came is no answer of a runtime"


def command_for(state_dir: Path) -> str:
    """This command as a shell has to call it for the runtime of this folder, also in another terminal. In a
    container, whose first process this is, all have the same variables."""
    others = {name: value for name, value in os.environ.items() if name != "MHNOS_STATE_DIR"}
    if os.getpid() == 1 or state_dir == Path(default_state_dir(others)):
        return own_command()
    return f"MHNOS_STATE_DIR={shlex.quote(str(state_dir))} {own_command()}"


def own_command() -> str:
    """This command as a shell finds it from here: its name where that is on PATH, else its path."""
    script = Path(sys.argv[0])
    if script.name != "mhnos-runtime" or not script.is_file():
        script = Path(sys.executable).with_name("mhnos-runtime")
    if not script.is_file():
        return f"{shlex.quote(sys.executable)} -m mhnos_runtime"
    on_path = shutil.which(script.name)
    if on_path is not None and os.path.samefile(on_path, script):
        return script.name
    return shlex.quote(str(script))
