"""tools/find-python runs what it finds: on a machine with pyenv a name on PATH may be a shim of nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.project.checkout import ROOT

TOOL = ROOT / "tools" / "find-python"


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


def find(home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    path = f"{home}:/usr/bin:/bin"
    return subprocess.run(
        ["/bin/sh", str(TOOL)], env={"PATH": path, "HOME": str(home), **env}, capture_output=True, text=True
    )


def test_a_shim_of_nothing_is_passed_over(tmp_path: Path) -> None:
    program(tmp_path / "python3.13", "echo 'pyenv: python3.13: command not found' >&2; exit 127")
    program(tmp_path / "python3.12", f'exec {sys.executable} "$@"')
    found = find(tmp_path)
    assert (found.returncode, found.stdout.strip()) == (0, sys.executable)


def test_a_named_python_is_the_only_candidate(tmp_path: Path) -> None:
    found = find(tmp_path, PYTHON=str(tmp_path / "python9"))
    assert found.returncode == 1
    assert found.stdout == ""
    assert "python9" in found.stderr


@pytest.mark.parametrize(
    ("answer", "says"),
    [("novenv", "apt-get install python3.11-venv"), ("old", "is older"), ("", "apt-get install python3 ")],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, answer: str, says: str) -> None:
    named = tmp_path / "python"
    program(named, f'case "$2" in *ensurepip*) echo {answer};; *) echo python3.11-venv;; esac')
    found = find(tmp_path, PYTHON=str(named))
    assert found.returncode == 1
    assert found.stderr.startswith("error: ")
    assert found.stderr.count("\n") == 1
    assert says in found.stderr
