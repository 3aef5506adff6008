"""What can be wrong with an installation: each with one outcome, nothing half done that is used, and nothing
that stands in the way of the next attempt."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mhnos_runtime.engines import Engine, EngineStore, Spec
from mhnos_runtime.engines.change import Change
from mhnos_runtime.errors import InstallFailed
from tests.engines.registry import SCRIPT, Package, Registry, spec_of

Install = Callable[..., Engine]
MIB = 1 << 20


def engine_of(name: str = "main", *, program: bytes = SCRIPT, filler_bytes: int = 0) -> Package:
    return Package(name, "1.0.0", program, filler_bytes=filler_bytes)


def refused(install: Install, spec: Spec, folder: Path, code: str, **options: float | str) -> InstallFailed:
    """The error of an installation that must fail, and leave nothing that is used or in the way."""
    with pytest.raises(InstallFailed) as caught:
        install(spec, folder, **options)
    assert caught.value.code == code, caught.value.message
    assert caught.value.hint
    assert EngineStore(folder, catalogue={spec.name: spec}).versions(spec.name) == []
    assert not (folder / ".staging").exists()
    assert not (folder / ".trash").exists()
    return caught.value


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that nobody listens on and that nobody else gets."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.parametrize("optional", [False, True])
def test_npm_does_not_reach_its_registry(
    place: Path,
    registry: Registry,
    install: Install,
    closed_port: int,
    monkeypatch: pytest.MonkeyPatch,
    optional: bool,
) -> None:
    """npm takes an optional package that it cannot get for a success; builds for one machine are such."""
    spec = spec_of(registry, place / "locks", engine_of(), optional=optional)
    monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{closed_port}/")
    error = refused(install, spec, place / "engines", "npm-unreachable")
    assert "ECONNREFUSED" in error.message
    assert error.retry
    monkeypatch.setenv("npm_config_registry", registry.url)
    install(spec, place / "engines")


def test_a_name_that_does_not_resolve(
    place: Path, registry: Registry, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(registry, place / "locks", engine_of())
    monkeypatch.setenv("npm_config_registry", "http://registry.invalid/")
    refused(install, spec, place / "engines", "npm-unreachable")


def test_a_network_that_swallows_everything(place: Path, registry: Registry, install: Install) -> None:
    spec = spec_of(registry, place / "locks", engine_of())
    registry.deaf = True
    registry.gate.clear()
    error = refused(install, spec, place / "engines", "npm-unreachable", stall_seconds=2)
    assert "nothing came for 2 seconds" in error.message


def test_a_package_that_was_altered_on_the_way(place: Path, registry: Registry, install: Install) -> None:
    spec = spec_of(registry, place / "locks", engine_of(), engine_of("other"))
    registry.altered.add("other")
    refused(install, spec, place / "engines", "engine-altered")
    registry.altered.clear()
    install(spec, place / "engines")


def test_an_optional_package_that_was_altered(place: Path, registry: Registry, install: Install) -> None:
    """npm leaves it out and says that all is well."""
    spec = spec_of(registry, place / "locks", engine_of("other"), engine_of(), optional=True)
    registry.altered.add("main")
    refused(install, spec, place / "engines", "engine-altered")


@pytest.mark.parametrize("optional", [False, True])
def test_a_registry_that_does_not_have_it(
    place: Path, registry: Registry, install: Install, optional: bool
) -> None:
    spec = spec_of(registry, place / "locks", engine_of(), optional=optional)
    registry.absent.add("main")
    error = refused(install, spec, place / "engines", "engine-unavailable")
    assert "404" in error.message


def test_another_machine_than_the_lock_has(place: Path, registry: Registry, install: Install) -> None:
    spec = spec_of(registry, place / "locks", engine_of())
    error = refused(install, spec, place / "engines", "engine-platform", machine="riscv64")
    assert error.message == "workerd is made for x86_64 and aarch64, and this machine is riscv64"
    assert not registry.fetched


#: The head of a 64-bit ELF file whose machine (e_machine, elf(5)) nobody has.
FOREIGN = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHI", 2, 0xFEED, 1) + bytes(40)


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (FOREIGN, "Exec format error"),
        (b"#!/no/such/loader\n", "No such file"),
        (b"#!/bin/sh\necho 'a library is missing' >&2\nexit 127\n", "a library is missing"),
        (b"#!/bin/sh\nexit 3\n", "it ended with 3"),
        (b"", ""),
    ],
)
def test_a_program_that_does_not_run_here(
    place: Path, registry: Registry, install: Install, program: bytes, why: str
) -> None:
    spec = spec_of(registry, place / "locks", engine_of(program=program))
    error = refused(install, spec, place / "engines", "engine-platform")
    assert "cannot be started on this machine" in error.message
    assert why in error.message


def test_an_engine_that_does_not_run_leaves_the_one_before_it(
    place: Path, registry: Registry, install: Install
) -> None:
    good = spec_of(registry, place / "1", engine_of())
    bad = spec_of(registry, place / "2", Package("main", "2.0.0", FOREIGN))
    first = install(good, place / "engines")
    with pytest.raises(InstallFailed):
        install(bad, place / "engines")
    assert EngineStore(place / "engines", catalogue={"workerd": bad}).find("workerd") == first


def test_too_little_space_is_told_before_anything_is_fetched(
    place: Path, registry: Registry, install: Install
) -> None:
    spec = spec_of(registry, place / "locks", engine_of(), disk_bytes=1 << 60)
    error = refused(install, spec, place / "engines", "no-space")
    assert "MiB are free" in error.message
    assert not registry.fetched


@pytest.fixture
def small_disk(place: Path) -> Iterator[Path]:
    folder = place / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=755", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("optional", [False, True])
def test_a_disk_that_fills_up(
    place: Path, small_disk: Path, registry: Registry, install: Install, optional: bool
) -> None:
    spec = spec_of(registry, place / "locks", engine_of(filler_bytes=16 * MIB), optional=optional)
    refused(install, spec, small_disk / "engines", "no-space")
    # What was downloaded would only keep the disk full.
    assert not (small_disk / "engines" / ".npm-cache").exists()


def test_a_folder_that_others_can_write(place: Path, registry: Registry, install: Install) -> None:
    spec = spec_of(registry, place / "locks", engine_of())
    (place / "engines").mkdir()
    (place / "engines").chmod(0o777)
    error = refused(install, spec, place / "engines", "engines-dir")
    assert "can be written by other users" in error.message
    assert not registry.fetched


@pytest.mark.parametrize("below", [False, True])
def test_a_folder_that_is_a_file(place: Path, registry: Registry, install: Install, below: bool) -> None:
    spec = spec_of(registry, place / "locks", engine_of())
    (place / "engines").write_text("")
    folder = place / "engines" / "deeper" if below else place / "engines"
    with pytest.raises(InstallFailed, match="cannot be used") as caught:
        install(spec, folder)
    assert caught.value.code == "engines-dir"


def test_npm_that_cannot_be_started(place: Path, registry: Registry) -> None:
    spec = spec_of(registry, place / "locks", engine_of())
    with (
        Change(EngineStore(place / "engines", catalogue={"workerd": spec})) as change,
        pytest.raises(InstallFailed) as caught,
    ):
        change.install("workerd", [str(place / "npm")])
    assert caught.value.code == "npm-missing"


def test_npm_that_fails_in_its_own_way(place: Path, registry: Registry) -> None:
    spec = spec_of(registry, place / "locks", engine_of())
    (place / "npm").write_text(
        "#!/bin/sh\necho 'npm error code EOTHER' >&2\necho 'npm error odd' >&2\nexit 9\n"
    )
    (place / "npm").chmod(0o755)
    with (
        Change(EngineStore(place / "engines", catalogue={"workerd": spec})) as change,
        pytest.raises(InstallFailed, match="npm failed: code EOTHER; odd") as caught,
    ):
        change.install("workerd", [str(place / "npm")])
    assert caught.value.code == "npm-failed"


def test_two_changes_exclude_each_other(place: Path) -> None:
    store = EngineStore(place / "engines")
    with Change(store):
        with pytest.raises(InstallFailed, match=rf"another command .* \(pid {os.getpid()}\)") as caught:
            Change(store).__enter__()
        assert (caught.value.code, caught.value.retry) == ("engines-busy", True)
    with Change(store):
        pass


def test_what_a_killed_installation_left_is_put_away(
    place: Path, registry: Registry, install: Install
) -> None:
    folder = place / "engines"
    for name in (".staging/workerd/node_modules/main/bin", ".trash/old"):
        (folder / name).mkdir(parents=True)
    (folder / ".staging/workerd/node_modules/main/bin/program").write_bytes(SCRIPT)
    spec = spec_of(registry, place / "locks", engine_of())
    engine = install(spec, folder)
    assert engine.program.is_file()
    with contextlib.suppress(FileNotFoundError):
        assert not list((folder / ".staging").iterdir())
    assert not (folder / ".trash").exists()
