"""The Python client: processes of a runtime, over a connection that comes back and loses nothing."""

from mhnos_runtime.client.backoff import Backoff
from mhnos_runtime.client.discover import Target, discover
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
from mhnos_runtime.client.process import ClientProcess
from mhnos_runtime.client.runtime import Runtime
from mhnos_runtime.client.types import ExitInfo, Gap, Output, PtySize

connect = Runtime

__all__ = [
    "Backoff",
    "ClientError",
    "ClientProcess",
    "ConnectFailed",
    "ConnectionLost",
    "ExitInfo",
    "Forbidden",
    "Gap",
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
