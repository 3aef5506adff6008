"""compose.yaml as a project of a test, with a port of its own. Knows compose and its variables, no test."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

from tests.packages.engine import IMAGE, Engine
from tests.packages.wheel import ROOT

FOLDER = ROOT / "packaging" / "docker"
UID = 9999


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def owned_by_the_image(path: Path, text: str) -> Path:
    """A file as a secret has to be."""
    path.write_text(text)
    path.chmod(0o600)
    os.chown(path, UID, UID)
    return path


class Project:
    """Use as a context manager. url, token: for clients on this machine. service: the one of interest."""

    def __init__(
        self,
        engine: Engine,
        name: str,
        *files: str | Path,
        service: str = "runtime",
        profile: str = "",
        **settings: str,
    ) -> None:
        self.port = free_port()
        self.engine = engine
        self.url = f"http://127.0.0.1:{self.port}"
        self.service = service
        publish = "MHNOS_PUBLISH" if service == "runtime" else f"MHNOS_{service.upper()}_PUBLISH"
        self.settings = {
            "MHNOS_IMAGE": IMAGE,
            publish: f"127.0.0.1:{self.port}",
            "MHNOS_ALLOW_HOST": f"127.0.0.1:{self.port}",
            **settings,
        }
        given = [FOLDER / file for file in ("compose.yaml", *files)]
        self._words = ["compose", "--project-name", name, *(f"--file={file}" for file in given)]
        self._words += [f"--profile={profile}"] if profile else []

    def __enter__(self) -> Project:
        return self

    def __exit__(self, *_error: object) -> None:
        self.call("down", "--volumes", "--timeout", "10")

    def call(self, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return self.engine.call(*self._words, *words, env=self.settings, timeout=timeout)

    def run(self, *words: str) -> str:
        done = self.call(*words)
        assert done.returncode == 0, f"{words}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    def up(self) -> None:
        """Until it is healthy."""
        which = [self.service] if self.service != "runtime" else []
        self.run("up", "--detach", "--no-build", "--wait", *which)

    def inside(self, *words: str) -> str:
        return self.run("exec", "-T", self.service, *words)

    @property
    def container(self) -> str:
        return self.run("ps", "--all", "--quiet", self.service).strip()

    @property
    def token(self) -> str:
        return self.inside("mhnos-runtime", "token").strip()

    @property
    def log(self) -> str:
        return self.run("logs", "--no-log-prefix", self.service)

    def levels(self) -> dict[str, Any]:
        """What `doctor` says of the sandbox's levels."""
        levels = json.loads(self.inside("mhnos-runtime", "doctor", "--json"))["levels"]
        assert isinstance(levels, dict)
        return levels
