"""The configuration of a supervisor. Plain data, which also travels to the supervisor that replaces it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mhnos_runtime.launch import Hello


@dataclass(frozen=True)
class Config:
    """server: arguments for the Python interpreter. lock_fd: locks the state directory for this runtime.
    hello: the first message to each server; its listeners stay open over all servers. remove_at_end: files
    that exist while the runtime runs. groups: directories of control groups, also removed at the end. own:
    own files that a version checks before it takes over (`ownfiles.Trust`), "" for none.
    """

    server: list[str]
    lock_fd: int
    state_dir: Path
    stop_grace_ms: int
    hello: Hello
    log_json: bool
    remove_at_end: list[str]
    groups: list[str] = field(default_factory=list)
    own: str = ""

    @property
    def listeners(self) -> tuple[int, ...]:
        """Descriptors of listening sockets."""
        return self.hello.listeners

    @property
    def allowed(self) -> dict[str, Any]:
        """What a server may have started, as `sandbox.Allowed`."""
        return self.hello.allowed
