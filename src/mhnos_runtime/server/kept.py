"""What an earlier server kept on a process's record, checked before this one uses it.

A server that was taken over may have written anything there, and so may a disk that is damaged. Knows what
the parts of this server read; not where it comes from.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec

from mhnos_runtime.bounds import MAX_MS
from mhnos_runtime.process.ready import Port, Watch
from mhnos_runtime.wire import messages as m


class _Readiness(msgspec.Struct):
    state: Literal["starting", "ready", "failed"]
    reason: str


class _Kept(msgspec.Struct):
    """The fields of `Process.meta`."""

    kind: str
    command: str
    args: list[str]
    name: str | None
    cwd: str
    linger_ms: Annotated[int, msgspec.Meta(ge=0, le=MAX_MS)] | None
    sandbox: str
    isolation: dict[str, Any]
    key: str | None
    request: str | None
    single: bool
    early_exit: str
    ports: list[Port]
    watch: Watch | None
    ready: _Readiness | None
    secrets: dict[str, str]


#: What is said of a process of which nothing can be said: it is listed, and can be ended.
UNREADABLE: dict[str, Any] = {
    "kind": "unknown",
    "command": "",
    "args": [],
    "name": None,
    "cwd": "/",
    "linger_ms": None,
    "sandbox": "unknown",
    "isolation": None,
    "key": None,
    "request": None,
    "single": False,
    "early_exit": "",
    "ports": [],
    "watch": None,
    "ready": None,
    "secrets": {},
}


def usable(meta: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """What this server can use of it, with all fields that it knows and those of others; and why that is
    nothing, or ""."""
    try:
        kept = msgspec.convert(meta, _Kept)
        if (kept.watch is None) != (kept.ready is None):
            raise ValueError("watch and ready do not fit together")
        if kept.watch is not None:
            re.compile(kept.watch.line)
        _as_told(m.Isolation(**kept.isolation), m.Isolation)
        _as_told(kept, _Kept)
    except (ValueError, TypeError, RecursionError, OverflowError, re.error) as error:
        return dict(UNREADABLE), " ".join(str(error).split())[:200] or type(error).__name__
    return {**meta, **msgspec.to_builtins(kept)}, ""


def _as_told(value: object, kind: Any) -> None:
    """Whether it can be sent, and is then what it should be."""
    msgspec.json.decode(msgspec.json.encode(value), type=kind)
