"""What `make serve` does beside the runtime: engines in the background, and how far pip is."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
FAKE = """#!/bin/sh
echo "$@" >> {calls}
case $1 in
    health) [ "$(grep -c health {calls})" -ge 3 ] ;;
    engines) echo "workerd 1 installed"; exit {code} ;;
esac
"""


class Beside:
    """engines-beside with a runtime that answers when it is asked for the third time."""

    def __init__(self, folder: Path, code: int) -> None:
        self.stamp, self._calls, self._folder = folder / "engines", folder / "calls", folder
        (folder / "mhnos-runtime").write_text(FAKE.format(calls=self._calls, code=code))
        (folder / "mhnos-runtime").chmod(0o755)

    def run(self, os_pid: int) -> str:
        command = [str(TOOLS / "engines-beside"), str(self._folder), str(os_pid), str(self.stamp)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        assert done.stderr == ""
        return done.stdout

    @property
    def calls(self) -> list[str]:
        return self._calls.read_text().splitlines()


def test_engines_are_installed_once_the_runtime_listens(tmp_path: Path) -> None:
    beside = Beside(tmp_path, 0)
    said = beside.run(os.getpid())
    assert said.splitlines() == [
        "Installing what the kind workerd needs, in the background (once)",
        "workerd 1 installed",
    ]
    assert beside.calls == ["health"] * 3 + ["engines install --needed node workerd"]
    assert beside.stamp.exists()


def test_without_a_network_it_is_said_and_the_next_start_tries_again(tmp_path: Path) -> None:
    beside = Beside(tmp_path, 1)
    said = beside.run(os.getpid())
    assert f"Not installed, see {beside.stamp}.log" in said
    assert not beside.stamp.exists()


def test_a_runtime_that_did_not_start_installs_nothing(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    beside = Beside(tmp_path, 0)
    assert beside.run(gone.pid) == ""
    assert beside.calls == ["health", "health"]


@pytest.fixture
def python(tmp_path: Path) -> Path:
    path = tmp_path / "python"
    path.write_text(
        '#!/bin/sh\necho "$@" > "$0.args"\n'
        "echo 'Collecting aiohttp==3 (from -r x)'; echo 'Installing collected packages: aiohttp'\n"
        "echo refused >&2; exit 3\n"
    )
    path.chmod(0o755)
    return path


def pip_install(python: Path) -> list[str]:
    return [str(TOOLS / "pip-install"), str(python), "-r", "x"]


def test_pip_is_quiet_without_a_terminal(python: Path) -> None:
    done = subprocess.run(pip_install(python), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (3, "refused\n")
    assert "--quiet -r x" in Path(f"{python}.args").read_text()


def test_pip_shows_on_a_terminal_how_far_it_is_and_how_it_ended(python: Path) -> None:
    master, slave = pty.openpty()
    with subprocess.Popen(pip_install(python), stderr=slave, stdout=slave) as pip:
        assert pip.wait(30) == 3
    os.close(slave)
    shown = os.read(master, 4096).decode()
    os.close(master)
    assert "package 1: aiohttp" in shown
    assert "refused" in shown
    assert "Installing" not in shown
