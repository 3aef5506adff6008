"""What a host can do, as data: each fact with its purpose and how to get it. Measures nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact about the host. detail: version, path, or why it is missing. how: one command or setting."""

    name: str
    found: bool
    detail: str
    needed_for: str
    how: str = ""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Everything about the host that launch plans depend on.

    landlock: the ABI, 0 for none. bubblewrap: path or "". namespaces: whether a user without privileges could
    make a complete sandbox. filters: seccomp programs in base64 by name: "strict", "relaxed",
    "relaxed-no-network", and each of them with the suffix "-no-connect". cgroups: (hierarchy, directory)
    where groups can be made, as in `Limits`. system: (path, link target or "") of system directories.
    configuration: files and folders below /etc that programs need. linked: those that are links to elsewhere.
    node: files of Node.js, read-only. sized_tmpfs, disable_userns: whether bubblewrap has these options.
    rows: the same facts for people.
    """

    bubblewrap: str = ""
    namespaces: bool = False
    landlock: int = 0
    filters: Mapping[str, str] | None = None
    cgroups: tuple[tuple[str, str], ...] = ()
    system: tuple[tuple[str, str], ...] = ()
    configuration: tuple[str, ...] = ()
    linked: tuple[str, ...] = ()
    node: str = ""
    sized_tmpfs: bool = False
    disable_userns: bool = False
    rows: tuple[Fact, ...] = ()

    def fact(self, name: str) -> Fact:
        return next(fact for fact in self.rows if fact.name == name)

    def missing(self, level: str) -> list[Fact]:
        """Facts that this level needs and the host lacks."""
        return [fact for fact in self.rows if not fact.found and fact.name in NEEDS[level]]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> HostFacts:
        pairs = {name: tuple(map(tuple, data[name])) for name in ("cgroups", "system")}
        texts = {name: tuple(data[name]) for name in ("configuration", "linked")}
        known = {field.name: data[field.name] for field in fields(cls)}
        return cls(
            **{
                **known,
                **pairs,
                **texts,
                "rows": tuple(Fact(**fact) for fact in data["rows"]),
            }
        )


#: Names of the facts that a level needs.
NEEDS = {
    "strict": ("bubblewrap", "user namespaces", "libseccomp", "seccomp"),
    "relaxed": ("landlock", "libseccomp", "seccomp"),
    "none": (),
}
