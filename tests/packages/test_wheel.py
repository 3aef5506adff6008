"""The wheel in an empty environment, without the source tree: what is in it, and a session with a client."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

import mhnos_runtime
from mhnos_runtime.sandbox.probe import probe
from tests.packages.wheel import (
    PIP,
    ROOT,
    TIMEOUT_S,
    build,
    clean_variables,
    copy_checkout,
    readme_lines,
    run,
)
from tests.project.console import Step
from tests.project.console import run as shown_as_run
from tests.sandbox.conftest import place, require

pytestmark = pytest.mark.timeout(TIMEOUT_S * 2)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def environment() -> Iterator[Path]:
    """The environment that the lines of the README make, up to its last one, which serves."""
    home = place()
    checkout = copy_checkout(home / "checkout")
    python = Path(sys.base_prefix) / "bin"
    env = clean_variables(home) | {"PATH": f"{python}:{os.environ['PATH']}"}
    *lines, last = readme_lines("build-wheel")
    assert last == "~/mhnos/bin/mhnos-runtime serve"
    for line in lines:
        run(["bash", "-c", line], checkout, env)
    shutil.rmtree(checkout)
    yield home / "mhnos"
    shutil.rmtree(home)


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    listing = run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "src"], ROOT)
    expected = {line.removeprefix("src/") for line in listing.splitlines() if (ROOT / line).is_file()}
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == expected
    assert "mhnos_runtime/py.typed" in packed


def test_the_metadata_says_what_it_is_and_needs(wheel: Path) -> None:
    said = metadata(wheel)
    assert said["Name"] == "mhnos-runtime"
    assert said["Version"] == mhnos_runtime.__version__
    assert said["License-Expression"] == "MIT"
    assert said["Requires-Python"] == ">=3.11"
    assert said["Description-Content-Type"] == "text/markdown"
    needed = {line.split("<")[0].split(">")[0] for line in said.get_all("Requires-Dist", [])}
    assert {"aiohttp", "click", "msgspec", "uvloop"} <= needed
    assert wheel.name.endswith("-py3-none-any.whl")


def test_the_same_source_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    again = build(tmp_path)
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (wheel, again)}
    assert len(digests) == 1


def test_it_is_the_installed_one_and_complete(environment: Path, tmp_path: Path) -> None:
    python, env = environment / "bin" / "python", clean_variables(tmp_path)
    where = run([python, "-c", "import mhnos_runtime; print(mhnos_runtime.__file__)"], tmp_path, env)
    assert Path(where.strip()).is_relative_to(environment)
    run([python, *PIP, "check"], tmp_path, env)
    version = run([environment / "bin" / "mhnos-runtime", "--version"], tmp_path, env)
    assert mhnos_runtime.__version__ in version
    walk = "import pkgutil, importlib, mhnos_runtime as m\n"
    walk += "for each in pkgutil.walk_packages(m.__path__, 'mhnos_runtime.'):\n"
    walk += "    each.name.endswith('__main__') or importlib.import_module(each.name)\n"
    run([python, "-c", walk], tmp_path, env)


@contextlib.contextmanager
def served(line: str, env: dict[str, str], folder: Path) -> Iterator[None]:
    """While a line serves, from when it answers on; it ends in order."""
    with (folder / "log").open("wb") as log:
        serving = subprocess.Popen(
            ["bash", "-c", f"exec {line}"], cwd=folder, env=env, stdout=log, stderr=log
        )
    try:
        run(["bash", "-c", line.replace(" serve", " health --wait 30")], folder, env)
        yield
    finally:
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(30) == 0, (folder / "log").read_text()


def test_the_lines_of_the_readme_lead_from_a_clone_to_a_shell(environment: Path) -> None:
    """Strict, in a home that root's processes can reach, too."""
    require(probe(None), "strict")
    home = environment.parent
    # Its default is another folder where there is a /workspace.
    env = clean_variables(home) | {
        "MHNOS_RUNTIME_PORT": "0",
        "MHNOS_WORKSPACE": str(home / "mhnos-workspace"),
    }
    (home / "mhnos-workspace").mkdir()
    serve, (shell,) = readme_lines("build-wheel")[-1], readme_lines("mhnos/bin/mhnos-runtime run")
    with served(serve, env, home):
        typed = shown_as_run(Step(0, shell)).replace("exit\\n", "echo from $((6*7)); exit\\n")
        assert "from 42" in run(["bash", "-c", typed], home, env).splitlines()
        (row,) = json.loads(run(["bash", "-c", serve.replace(" serve", " ps --all --json")], home, env))
        assert row["sandbox"] == "strict"


@pytest.fixture
def serving(environment: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Variables with which the installed command finds the runtime that it started with nothing set."""
    env = clean_variables(tmp_path) | {"MHNOS_RUNTIME_PORT": "0", "MHNOS_WORKSPACE": str(tmp_path / "files")}
    # The folders of tests are closed to the user that root's processes would run as.
    env |= {"MHNOS_SANDBOX": "none", **({"MHNOS_ALLOW_ROOT": "true"} if os.geteuid() == 0 else {})}
    (tmp_path / "files").mkdir()
    with served(f"{environment}/bin/mhnos-runtime serve", env, tmp_path):
        yield env


def test_a_client_uses_it(environment: Path, serving: dict[str, str], tmp_path: Path) -> None:
    command = environment / "bin" / "mhnos-runtime"
    assert (
        run([command, "run", "shell", "echo hello from $((6 * 7))"], tmp_path, serving) == "hello from 42\n"
    )
    (tmp_path / "files" / "hello.py").write_text("print('from python')")
    assert run([command, "run", "python", "hello.py"], tmp_path, serving) == "from python\n"
    (tmp_path / "files" / "hello.js").write_text(
        "console.log('from node ' + process.versions.node.split('.')[0])"
    )
    major = run([command, "run", "node", "hello.js"], tmp_path, serving).removeprefix("from node ")
    assert int(major) >= 22, "the lock brings Node.js where the machine's is older"
    run([command, "check"], tmp_path, serving)
    run([command, "reload"], tmp_path, serving)


def uv(folder: Path) -> Path:
    """The locked one, in an environment of its own."""
    run([sys.executable, "-m", "venv", folder], folder.parent)
    lock = ROOT / "requirements" / "lock.txt"
    run([folder / "bin" / "python", *PIP, "install", "--require-hashes", "-r", lock], folder)
    return folder / "bin" / "uv"


def test_uv_runs_it_from_nothing(wheel: Path, tmp_path: Path) -> None:
    env = clean_variables(tmp_path)
    said = run(
        [uv(tmp_path / "uv"), "tool", "run", "--from", wheel, "mhnos-runtime", "--version"], tmp_path, env
    )
    assert mhnos_runtime.__version__ in said


def test_pipx_runs_it_from_nothing(wheel: Path, tmp_path: Path) -> None:
    pipx = shutil.which("pipx") or pytest.skip("pipx is not on this machine")
    env = clean_variables(tmp_path)
    said = run([pipx, "run", "--spec", wheel, "mhnos-runtime", "--version"], tmp_path, env)
    assert mhnos_runtime.__version__ in said
