"""What can become of processes, and the form in which others are told of it. Knows no client."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

from mhnos_runtime.process.table import Process

#: "ready" is told of readiness, and of its failure.
Happening: TypeAlias = Literal["started", "ready", "ended", "renamed", "removed"]


class Tell(Protocol):
    """Is told of everything, in order. time_ms: when it happened, since the epoch."""

    def __call__(self, what: Happening, process: Process, time_ms: int, /) -> None: ...
