"""What the supervisor is started with. Plain data, which also travels to the supervisor that replaces it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mhnos_runtime.launch import Hello


@dataclass(frozen=True)
class Config:
    """server: arguments for the Python interpreter. lock_fd: keeps the state directory for this runtime.
    hello: what each server is told first; its listeners stay open over all servers. remove_at_end: files that
    say that it runs. groups: directories of control groups, to be removed at the end too. own: what a version
    that takes over checks of its own files (`ownfiles.Trust`), "" for nothing.
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
