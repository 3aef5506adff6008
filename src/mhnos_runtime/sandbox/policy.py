"""What the operator allows and what a request may narrow. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.launch import Wish

Level = Literal["strict", "relaxed", "none"]
Network = Literal["host", "loopback", "none"]

LEVELS: tuple[Level, ...] = ("strict", "relaxed", "none")
#: From the widest to the narrowest.
NETWORKS: tuple[Network, ...] = ("host", "loopback", "none")
#: Networks that a level can give. relaxed has no namespace to put a network in; none has no means at all.
OFFERED: dict[Level, tuple[Network, ...]] = {
    "strict": NETWORKS,
    "relaxed": ("host", "none"),
    "none": ("host",),
}


@dataclass(frozen=True, slots=True)
class Policy:
    """0 is no limit. memory_bytes, tasks, cpu_percent (100: one CPU): of a process with all its descendants.
    cpu_seconds, file_bytes, open_files: of each of them (getrlimit(2)). user: (uid, gid), or None for the
    runtime's own."""

    level: Level
    network: Network = "host"
    memory_bytes: int = 0
    tasks: int = 0
    cpu_percent: int = 0
    cpu_seconds: int = 0
    file_bytes: int = 0
    open_files: int = 0
    user: tuple[int, int] | None = None


def narrow(policy: Policy, wish: Wish) -> Policy:
    """The policy for one process. What asks for more gets what the policy gives, never more.

    Raises InvalidRequest for a network that there is not, or that the level cannot give, since the process
    would get more than was asked for.
    """
    return replace(
        policy,
        network=_network(policy, wish.network),
        memory_bytes=_smaller(policy.memory_bytes, wish.memory_bytes),
        tasks=_smaller(policy.tasks, wish.tasks),
        cpu_percent=_smaller(policy.cpu_percent, wish.cpu_percent),
        cpu_seconds=_smaller(policy.cpu_seconds, wish.cpu_seconds),
        file_bytes=_smaller(policy.file_bytes, wish.file_bytes),
        open_files=_smaller(policy.open_files, wish.open_files),
    )


def _network(policy: Policy, asked: str | None) -> Network:
    if asked is None:
        return policy.network
    if asked not in NETWORKS:
        raise InvalidRequest(f"network {asked!r} is not known", hint=f"use one of {', '.join(NETWORKS)}")
    narrower: Network = max(policy.network, NETWORKS[NETWORKS.index(asked)], key=NETWORKS.index)
    if narrower not in OFFERED[policy.level]:
        raise InvalidRequest(
            f"network {narrower!r} cannot be given at sandbox level {policy.level}",
            hint=f"this level offers {', '.join(OFFERED[policy.level])}",
        )
    return narrower


def _smaller(allowed: int, asked: int | None) -> int:
    if asked is None or asked <= 0:
        return allowed
    return min(allowed, asked) if allowed else asked
