"""The operator's policy, and what of it a request may narrow. Pure."""

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
#: Networks that a level can give. relaxed has no network namespace; none has no means at all.
OFFERED: dict[Level, tuple[Network, ...]] = {
    "strict": NETWORKS,
    "relaxed": ("host", "none"),
    "none": ("host",),
}


@dataclass(frozen=True, slots=True)
class Policy:
    """The operator's limits, 0 for none. memory_bytes, tasks, cpu_percent (100: one CPU): of a process with
    all its descendants. cpu_seconds, file_bytes, open_files: of each of them (getrlimit(2)). user: (uid,
    gid), or None for the runtime's own."""

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
    """The policy for one process. A wish for more than the policy gets what the policy has.

    Raises InvalidRequest for an unknown network, or one that the level cannot give: the process would get a
    wider one than was asked for.
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
        raise InvalidRequest(f"network {asked!r} is unknown", hint=f"use one of {', '.join(NETWORKS)}")
    narrower: Network = max(policy.network, NETWORKS[NETWORKS.index(asked)], key=NETWORKS.index)
    if narrower not in OFFERED[policy.level]:
        raise InvalidRequest(
            f"sandbox level {policy.level} cannot give network {narrower!r}",
            hint=f"this level offers {', '.join(OFFERED[policy.level])}",
        )
    return narrower


def _smaller(allowed: int, asked: int | None) -> int:
    if asked is None or asked <= 0:
        return allowed
    return min(allowed, asked) if allowed else asked
