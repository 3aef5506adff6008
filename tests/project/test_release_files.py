"""The lock files fit pyproject.toml, carry hashes and no address, and the changelog knows the version."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mhnos_runtime
from tests.project.checkout import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WANTED: dict[str, list[str]] = {
    "runtime": [
        *PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"]["node"],
    ],
    "build": [*PROJECT["dependency-groups"]["build"], *PROJECT["build-system"]["requires"]],
    "dev": PROJECT["dependency-groups"]["dev"],
    "packages": PROJECT["dependency-groups"]["packages"],
    "lock": PROJECT["dependency-groups"]["lock"],
}
ENTRY = re.compile(r"^(?P<name>[A-Za-z0-9_.-]+)==(?P<version>[^ ;\\]+)", re.MULTILINE)


def lock(name: str) -> str:
    return (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")


def pins(name: str) -> dict[str, str]:
    return {canonicalize_name(m["name"]): m["version"] for m in ENTRY.finditer(lock(name))}


@pytest.mark.parametrize("name", WANTED)
def test_a_lock_has_what_the_project_asks_for(name: str) -> None:
    pinned = pins(name)
    for text in WANTED[name]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(pinned[canonicalize_name(wanted.name)]), text


@pytest.mark.parametrize("name", WANTED)
def test_a_lock_has_a_hash_for_each_entry_and_no_address(name: str) -> None:
    text = lock(name)
    entries = re.split(r"\n(?=[^ ])", text.strip())
    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert "://" not in text


def test_locks_that_share_an_environment_agree() -> None:
    seen: dict[str, str] = {}
    for name in ("runtime", "build", "dev"):
        for package, version in pins(name).items():
            assert seen.setdefault(package, version) == version, package


def test_the_changelog_knows_the_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{mhnos_runtime.__version__}]" in changelog
