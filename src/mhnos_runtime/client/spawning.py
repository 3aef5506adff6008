"""The fields of a spawn from a caller's options. Knows shapes only."""

from __future__ import annotations

from typing import Any

from mhnos_runtime.client.types import PtySize, SpawnOptions
from mhnos_runtime.wire import messages as m


def spawn_fields(kind: str, command: str, options: SpawnOptions) -> dict[str, Any]:
    """The fields of a Spawn, or of what is made of one."""
    pty, env, limits = options.get("pty"), options.get("env"), options.get("limits")
    ports = options.get("ports")
    of_process = m.SpawnOptions(options.get("cwd"), dict(env) if env else None, options.get("timeout_ms"))
    return {
        "process_type": kind,
        "command": command,
        "args": list(options.get("args", ())),
        "options": of_process,
        "pty": m.PtySize(cols=pty.cols, rows=pty.rows) if isinstance(pty, PtySize) else pty,
        "name": options.get("name"),
        "linger_ms": options.get("linger_ms"),
        "remove": options.get("remove", False),
        "network": options.get("network"),
        "ports": None if ports is None else dict(ports),
        "worker": options.get("worker"),
        "limits": m.SpawnLimits(**limits) if limits else None,
    }
