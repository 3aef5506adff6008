"""The Python client: processes of a runtime, over a connection that comes back and loses nothing.

Names are imported when they are used, since what they stand on takes longer to import than `--help` may take.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mhnos_runtime.client.backoff import Backoff
    from mhnos_runtime.client.discovery import Target, discover
    from mhnos_runtime.client.errors import (
        ClientError,
        ConnectFailed,
        ConnectionLost,
        Forbidden,
        ProcessLost,
        ProtocolViolation,
        RequestFailed,
        RequestTimedOut,
        Unauthorized,
    )
    from mhnos_runtime.client.events import Events
    from mhnos_runtime.client.process import ClientProcess
    from mhnos_runtime.client.runtime import Runtime, connect
    from mhnos_runtime.client.types import ExitInfo, Gap, InputUncertain, Output, PtySize

_HOMES = {
    "backoff": ("Backoff",),
    "discovery": ("Target", "discover"),
    "errors": (
        "ClientError",
        "ConnectFailed",
        "ConnectionLost",
        "Forbidden",
        "ProcessLost",
        "ProtocolViolation",
        "RequestFailed",
        "RequestTimedOut",
        "Unauthorized",
    ),
    "events": ("Events",),
    "process": ("ClientProcess",),
    "runtime": ("Runtime", "connect"),
    "types": ("ExitInfo", "Gap", "InputUncertain", "Output", "PtySize"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Backoff",
    "ClientError",
    "ClientProcess",
    "ConnectFailed",
    "ConnectionLost",
    "Events",
    "ExitInfo",
    "Forbidden",
    "Gap",
    "InputUncertain",
    "Output",
    "ProcessLost",
    "ProtocolViolation",
    "PtySize",
    "RequestFailed",
    "RequestTimedOut",
    "Runtime",
    "Target",
    "Unauthorized",
    "connect",
    "discover",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value
