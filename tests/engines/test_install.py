"""Installing, updating and removing with the real npm, from a registry of made-up packages."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mhnos_runtime.engines import Engine, EngineStore, Spec
from mhnos_runtime.engines.change import Change
from mhnos_runtime.engines.npm import Progress
from mhnos_runtime.engines.usage import users
from mhnos_runtime.errors import InstallFailed
from mhnos_runtime.sandbox.probe import probe
from tests.engines.registry import Package, Registry, spec_of

Install = Callable[..., Engine]
NOBODY = (65534, 65534)
MAPS_A_FILE = """
import mmap, sys
with open(sys.stdin.readline().strip(), "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
print(flush=True)
sys.stdin.read()
"""


def left_over(folder: Path) -> set[str]:
    """What a finished change leaves beside the engines."""
    return {path.name for path in folder.iterdir() if path.name.startswith(".")}


def version_of(spec: Spec, folder: Path) -> str | None:
    engine = EngineStore(folder, catalogue={spec.name: spec}).find(spec.name)
    return engine.version if engine else None


@contextmanager
def running(program: Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([program, "run"], stdin=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def test_an_engine_is_installed(place: Path, registry: Registry, install: Install) -> None:
    spec = spec_of(registry, place / "locks", Package("main", "1.2.3"), Package("other", "1.0.0"))
    engine = install(spec, place / "engines")
    assert (engine.name, engine.version) == ("workerd", "1.2.3")
    assert engine.program.is_relative_to(engine.folder)
    assert subprocess.run([engine.program, "--version"], capture_output=True).stdout == b"1.2.3\n"
    assert (engine.folder / "node_modules" / "other" / "package.json").is_file()
    assert engine.size_bytes >= 4096
    assert left_over(place / "engines") == set()


def test_what_is_installed_is_left_alone(
    place: Path, registry: Registry, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(registry, place / "locks", Package("main", "1.0.0"))
    engine = install(spec, place / "engines")
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:1/")
    assert install(spec, place / "engines") == engine
    assert registry.fetched == {"main": 1}


def test_others_can_read_it_whatever_the_umask(place: Path, registry: Registry, install: Install) -> None:
    """Root's runtime runs processes as another user, and root's umask may be 077."""
    spec = spec_of(registry, place / "locks", Package("main", "1.0.0"))
    before = os.umask(0o077)
    try:
        engine = install(spec, place / "deep" / "engines")
    finally:
        os.umask(before)
    for path in [engine.folder, *engine.folder.rglob("*"), *engine.folder.parents[:3]]:
        if not path.is_symlink():
            wanted = 0o555 if path.is_dir() or path == engine.program else 0o444
            assert path.stat().st_mode & wanted == wanted, path
            assert not path.stat().st_mode & 0o022, path
    if os.geteuid() == 0:
        done = subprocess.run(
            [engine.program, "--version"],
            user=NOBODY[0],
            group=NOBODY[1],
            extra_groups=[],
            capture_output=True,
        )
        assert done.stdout == b"1.0.0\n"


def test_only_the_build_of_this_machine_is_fetched(place: Path, registry: Registry, install: Install) -> None:
    here, there = ("x64", "arm64") if os.uname().machine == "x86_64" else ("arm64", "x64")
    spec = spec_of(
        registry,
        place / "locks",
        Package("main", "1.0.0", cpu=[here]),
        Package("foreign", "1.0.0", cpu=[there]),
        optional=True,
    )
    install(spec, place / "engines")
    assert registry.fetched == {"main": 1}


def test_install_scripts_are_not_run(place: Path, registry: Registry, install: Install) -> None:
    harmful = Package("main", "1.0.0", scripts={"postinstall": f"touch {place}/ran", "preinstall": "exit 1"})
    install(spec_of(registry, place / "locks", harmful), place / "engines")
    assert not (place / "ran").exists()


def test_progress_is_reported_before_anything_came(
    place: Path, registry: Registry, npm: tuple[str, ...]
) -> None:
    spec = spec_of(registry, place / "locks", Package("main", "1.0.0"), Package("more", "1.0.0"))
    seen: list[Progress] = []

    def look(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) == 3:
            assert not registry.fetched
            registry.gate.set()

    registry.gate.clear()
    with Change(EngineStore(place / "engines", catalogue={"workerd": spec})) as change:
        change.install("workerd", npm, "", look)
    assert seen[0].seconds < 1
    assert {each.total for each in seen} == {2}
    assert [each.packages for each in seen] == sorted(each.packages for each in seen)
    assert seen[-1].packages <= 2
    assert seen[-1].written_bytes > 0


def test_an_update_keeps_the_previous_version_until_the_next(
    place: Path, registry: Registry, install: Install
) -> None:
    """A running server has the path of the version that it was started with."""
    folder = place / "engines"
    specs = [spec_of(registry, place / v, Package("main", v)) for v in ("1.0.0", "2.0.0", "3.0.0")]
    first = install(specs[0], folder)
    assert version_of(specs[1], folder) == "1.0.0"
    second = install(specs[1], folder)
    assert version_of(specs[1], folder) == "2.0.0"
    assert first.program.exists()
    install(specs[2], folder)
    assert not first.folder.exists()
    assert second.program.exists()
    assert left_over(folder) == set()


def test_a_version_that_is_in_use_stays(place: Path, registry: Registry, install: Install) -> None:
    folder = place / "engines"
    specs = [spec_of(registry, place / v, Package("main", v)) for v in ("1.0.0", "2.0.0", "3.0.0", "4.0.0")]
    first = install(specs[0], folder)
    with running(first.program) as process:
        assert users(first.folder) == [process.pid]
        install(specs[1], folder)
        install(specs[2], folder)
        assert first.program.exists()
    install(specs[3], folder)
    assert not first.folder.exists()


def test_what_is_in_use_is_not_removed(place: Path, registry: Registry, install: Install) -> None:
    spec = spec_of(registry, place / "locks", Package("main", "1.0.0"))
    engine = install(spec, place / "engines")
    with running(engine.program) as process, Change(EngineStore(place / "engines")) as change:
        with pytest.raises(InstallFailed, match=f"in use by pid {process.pid}") as refused:
            change.remove("workerd")
        assert refused.value.code == "engine-in-use"
        assert engine.program.exists()
    with Change(EngineStore(place / "engines")) as change:
        assert change.remove("workerd") is True
        assert change.remove("workerd") is False
    assert not engine.folder.exists()
    assert left_over(place / "engines") == set()


def test_a_folder_that_is_only_mapped_is_in_use(place: Path) -> None:
    """As the addons of Node.js are, by a process that was started from elsewhere."""
    (place / "addon").write_bytes(bytes(4096))
    with subprocess.Popen(
        [sys.executable, "-c", MAPS_A_FILE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{place}/addon\n")
        process.stdin.flush()
        process.stdout.readline()
        assert users(place) == [process.pid]
        process.stdin.close()
    assert users(place) == []


def test_a_folder_that_a_sandbox_shows_is_in_use(place: Path) -> None:
    """Whatever the program inside calls itself."""
    if not probe(None).namespaces:
        pytest.skip("this machine has no namespaces")
    (place / "engine" / "version").mkdir(parents=True)
    shown = str(place / "engine" / "version")
    command = ["bwrap", "--ro-bind", "/", "/", "--ro-bind", shown, shown, "--", "/bin/cat"]
    with subprocess.Popen(["env", "-i", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"started\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"started\n"
        inside = [pid for pid in users(place / "engine") if Path(f"/proc/{pid}/comm").read_text() == "cat\n"]
        assert len(inside) == 1
        assert inside[0] in users(place / "engine" / "version")
        assert users(place / "engine" / "ver") == []
        process.stdin.close()


def test_a_damaged_installation_is_made_anew(place: Path, registry: Registry, install: Install) -> None:
    spec = spec_of(registry, place / "locks", Package("main", "1.0.0"))
    engine = install(spec, place / "engines")
    engine.program.write_bytes(b"")
    assert version_of(spec, place / "engines") is None
    assert install(spec, place / "engines").program.stat().st_size > 0
