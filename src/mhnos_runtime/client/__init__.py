"""The Python client: processes of a runtime, over a connection that comes back and loses nothing.

Names are imported when they are used, since what they stand on takes longer to import than `--help` may take.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mhnos_runtime.client.backoff import Backoff
    from mhnos_runtime.client.contents import ArchiveWritten, Contents, Download
    from mhnos_runtime.client.discovery import Target, discover
    from mhnos_runtime.client.errors import (
        ClientError,
        Conflict,
        ConnectFailed,
        ConnectionLost,
        Forbidden,
        ProcessLost,
        ProtocolViolation,
        RequestFailed,
        RequestTimedOut,
        SourceChanged,
        Unauthorized,
    )
    from mhnos_runtime.client.events import Events
    from mhnos_runtime.client.files import Files
    from mhnos_runtime.client.process import ClientProcess
    from mhnos_runtime.client.runtime import Runtime, connect
    from mhnos_runtime.client.tar_stream import Transferred
    from mhnos_runtime.client.types import ExitInfo, Gap, InputUncertain, Output, PtySize
    from mhnos_runtime.client.watches import Watch

_HOMES = {
    "backoff": ("Backoff",),
    "contents": ("ArchiveWritten", "Contents", "Download"),
    "discovery": ("Target", "discover"),
    "errors": (
        "ClientError",
        "Conflict",
        "ConnectFailed",
        "ConnectionLost",
        "Forbidden",
        "ProcessLost",
        "ProtocolViolation",
        "RequestFailed",
        "RequestTimedOut",
        "SourceChanged",
        "Unauthorized",
    ),
    "events": ("Events",),
    "files": ("Files",),
    "process": ("ClientProcess",),
    "runtime": ("Runtime", "connect"),
    "tar_stream": ("Transferred",),
    "types": ("ExitInfo", "Gap", "InputUncertain", "Output", "PtySize"),
    "watches": ("Watch",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "ArchiveWritten",
    "Backoff",
    "ClientError",
    "ClientProcess",
    "Conflict",
    "ConnectFailed",
    "ConnectionLost",
    "Contents",
    "Download",
    "Events",
    "ExitInfo",
    "Files",
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
    "SourceChanged",
    "Target",
    "Transferred",
    "Unauthorized",
    "Watch",
    "connect",
    "discover",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value
