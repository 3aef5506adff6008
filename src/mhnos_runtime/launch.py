"""The launch plan and what becomes of it: what the supervisor is told, what it answers, and nothing else.

Plain data that travels as JSON between server and supervisor. Knows no policy, no event loop and no client.
"""

from __future__ import annotations

import signal
from dataclasses import asdict, dataclass, field, fields
from typing import Any

STDOUT = 0
STDERR = 1


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """Exactly what to execute.

    argv: the program's absolute path first. env: the whole environment. pty: (cols, rows), or None for pipes.
    retention_bytes: how much output the log keeps. stall_ms: how long an unread viewer may hold the process
    up. timeout_ms: wall time until it is ended, 0 for none. escalation: what an ending signal is followed by,
    as (milliseconds after it, signal number). rlimits: (resource number, soft, hard). meta: the server's own
    facts about the process, which the supervisor keeps and hands to the next server unread.
    """

    argv: tuple[str, ...]
    env: dict[str, str]
    pty: tuple[int, int] | None = None
    retention_bytes: int = 1 << 20
    stall_ms: int = 10_000
    timeout_ms: int = 0
    escalation: tuple[tuple[int, int], ...] = ((5_000, int(signal.SIGKILL)),)
    rlimits: tuple[tuple[int, int, int], ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> LaunchPlan:
        pty = data["pty"]
        return cls(
            **{
                **data,
                "argv": tuple(data["argv"]),
                "pty": None if pty is None else (pty[0], pty[1]),
                "escalation": tuple((step[0], step[1]) for step in data["escalation"]),
                "rlimits": tuple((row[0], row[1], row[2]) for row in data["rlimits"]),
            }
        )


@dataclass(frozen=True, slots=True)
class ExitRecord:
    """What happened to a process, and how it is known.

    code and signal: exactly one is set unless reason is "lost". runtime_ms: wall time. cpu_ms and
    max_rss_bytes come from the kernel's account of the process and of the children that it waited for. bytes:
    written in all.
    """

    code: int | None
    signal: str | None
    reason: str
    evidence: str
    runtime_ms: int | None
    cpu_ms: int | None
    max_rss_bytes: int | None
    bytes: int
    end_time_ms: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ExitRecord:
        return cls(**{f.name: data[f.name] for f in fields(cls)})


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """One process as the supervisor knows it; what a new server starts from.

    pid is the runtime's own; os_pid the kernel's. start_time_ms is epoch. meta is the server's, see
    LaunchPlan.
    """

    pid: int
    os_pid: int
    start_time_ms: int
    pty: tuple[int, int] | None
    meta: dict[str, Any]
    stdin_open: bool = True
    exit: ExitRecord | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ProcessRecord:
        pty, ended = data["pty"], data["exit"]
        return cls(
            **{
                **data,
                "pty": None if pty is None else (pty[0], pty[1]),
                "exit": None if ended is None else ExitRecord.from_dict(ended),
            }
        )
