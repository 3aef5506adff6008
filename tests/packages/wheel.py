"""Builds the wheel, and gives variables without the source tree. Knows pip; asks it for what is locked."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements" / "runtime.txt"
PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet")
#: Seconds; a first download of everything locked, Node.js included.
TIMEOUT_S = 300


def run(command: Sequence[str | Path], cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """What it wrote, when it ended with 0."""
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def build(folder: Path) -> Path:
    """The wheel, built by what is locked."""
    folder.mkdir(parents=True, exist_ok=True)
    options = ("--no-deps", "--no-build-isolation", "--wheel-dir", folder)
    run([sys.executable, *PIP, "wheel", *options, ROOT], folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def clean_variables(home: Path) -> dict[str, str]:
    """Nothing that leads back to the source tree, or to a runtime or packages of the person who tests."""
    gone = ("MHNOS_", "XDG_", "PYTHON", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(gone)}
    return {**kept, "HOME": str(home), "PATH": "/usr/local/bin:/usr/bin:/bin"}


def readme_lines(word: str) -> list[str]:
    """The commands of the block of README.md that has this word, as a reader types them."""
    blocks = re.findall(
        r"^```sh\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    (block,) = (block for block in blocks if word in block)
    return str(block).splitlines()


def copy_checkout(target: Path) -> Path:
    """What a clone has, as far as installing needs it."""
    for name in ("src", "requirements", "tools", "packaging"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", ".dockerignore"):
        shutil.copy(ROOT / name, target / name)
    return target
