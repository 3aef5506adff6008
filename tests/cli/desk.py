"""A person's shell beside a runtime, for tests of what is typed. Runs bash; knows no verb."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

BIN = Path(sys.executable).parent


class Got(NamedTuple):
    """What a command line gave: its exit code, and what it wrote."""

    code: int
    out: str
    err: str = ""


class Desk:
    """A person's shell beside a runtime. home: the workspace as processes see it. here: the shell's folder,
    if it is not the workspace."""

    def __init__(self, state: Path, folder: Path, level: str, here: Path | None = None) -> None:
        self.state, self.folder, self.level, self.here = state, folder, level, here
        self.home = "/workspace" if level == "strict" else str(folder)

    def env(self, **variables: str) -> dict[str, str]:
        kept = {name: text for name, text in os.environ.items() if not name.startswith("MHNOS_")}
        own = {"MHNOS_STATE_DIR": str(self.state), "PATH": f"{BIN}:{kept['PATH']}", "NO_COLOR": "1"}
        if self.here is not None:
            own |= {"HOME": str(self.here), "XDG_CACHE_HOME": str(self.here / ".cache")}
        return kept | own | variables

    def type(self, line: str, **variables: str) -> Got:
        """A line as it is typed into bash, with `mr` for the command's name."""
        done = subprocess.run(
            ["bash", "-c", f'mr() {{ mhnos-runtime "$@"; }}\n{line}'],
            env=self.env(**variables),
            cwd=self.here or self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
        )
        out, err = (text.decode("utf-8", "surrogateescape") for text in (done.stdout, done.stderr))
        return Got(done.returncode, out, err)

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
