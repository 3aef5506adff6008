"""Which program of each engine the runtime uses now: what `doctor` and `engines list` tell. Installs none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mhnos_runtime.cli.node import choose_node, reader
from mhnos_runtime.engines import EngineStore
from mhnos_runtime.sandbox.facts import Fact

#: installed, update: by `engines install`, in the version that is pinned or in another one. found: a program
#: of this machine or of the runtime's own environment that is good enough. unusable: installed, and what it
#: needs in turn is not there.
State = Literal["installed", "update", "found", "unusable", "missing"]


@dataclass(frozen=True, slots=True)
class EngineState:
    """One engine. version, program: of what is used, "" where nothing is. folder: of an installed one.
    why_not: why it cannot be used, "" where it can. install: what to install for it to be usable."""

    name: str
    state: State
    version: str
    program: str
    folder: str
    size_bytes: int | None
    pinned: str
    needed_for: str
    why_not: str
    install: str

    @property
    def usable(self) -> bool:
        return not self.why_not

    def fact(self) -> Fact:
        """As a line of `doctor`."""
        newer = f"; {self.pinned} is ready: mhnos-runtime engines update {self.name}"
        detail = f"{self.version} ({self.program})" + (newer if self.state == "update" else "")
        how = f"mhnos-runtime engines install {self.install}"
        return Fact(self.name, self.usable, self.why_not or detail, self.needed_for, how)


def engine_states(engines: EngineStore) -> list[EngineState]:
    """Every engine of the catalogue."""
    return [_state(engines, name) for name in engines.catalogue]


def _state(engines: EngineStore, name: str) -> EngineState:
    spec, found = engines.catalogue[name], engines.find(name)
    state: State = "missing" if found is None else "installed" if engines.is_current(found) else "update"
    version, program = (found.version, str(found.program)) if found is not None else ("", "")
    why_not, install = "" if found is not None else engines.distrusted() or "not installed", name
    if name == "node":
        node = choose_node(reader(), engines)
        if found is None or node.path != str(found.program):
            state = "found" if node.path else "missing" if found is None else "unusable"
        program, version, why_not = node.path, node.version or version, node.why_not
    elif found is not None and spec.script:
        missing = choose_node(reader(), engines, spec.node_range).why_not
        if missing:
            state, why_not, install = "unusable", f"{version} is installed; {missing}", "node"
    sizes = [each.size_bytes for each in engines.versions(name)]
    return EngineState(
        name=name,
        state=state,
        version=version,
        program=program,
        folder=str(found.folder) if found is not None and state != "found" else "",
        size_bytes=sum(sizes) if sizes else None,
        pinned=spec.version,
        needed_for=spec.needed_for,
        why_not=why_not,
        install=install,
    )
