"""The configuration of a supervisor. Plain data, which also travels to the supervisor that replaces it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Config:
    """server: arguments for the Python interpreter. listeners: descriptors of listening sockets, which stay
    open over all servers. lock_fd: locks the state directory for this runtime. hello: first message to each
    server, unread. remove_at_end: files that exist while the runtime runs. groups: directories of control
    groups, also removed at the end. allowed: what a server may start (`sandbox.Allowed`); each server is told
    it too. own: own files that a version checks before it takes over (`ownfiles.Trust`), "" for none.
    """

    server: list[str]
    listeners: list[int]
    lock_fd: int
    state_dir: Path
    stop_grace_ms: int
    hello: dict[str, Any]
    allowed: dict[str, Any]
    log_json: bool
    remove_at_end: list[str]
    groups: list[str] = field(default_factory=list)
    own: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "state_dir": str(self.state_dir)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Config:
        return cls(**{**data, "state_dir": Path(data["state_dir"])})
