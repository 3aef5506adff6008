"""To hear of what becomes of processes: starts, readiness, ends, renames, removals.

Knows shapes and units; must not know what a server does with them.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import UNSET, UnsetType

from mhnos_runtime.wire.messages.base import Message
from mhnos_runtime.wire.messages.processes import ProcessInfo

Happening: TypeAlias = Literal["started", "ready", "ended", "renamed", "removed", "missed"]


class Subscribe(Message, tag="subscribe"):
    """Be told of processes from now on. A second time changes nothing."""


class Unsubscribe(Message, tag="unsubscribe"):
    """Be told no more."""


class Subscribed(Message, tag="subscribed"):
    """The answer to Subscribe: everything that happens from here on is told."""


class Unsubscribed(Message, tag="unsubscribed"):
    """The answer to Unsubscribe; no event follows it."""


class ProcessEvent(Message, tag="process"):
    """Something happened to a process. `time`: when, epoch ms. `process`: as a list shows it afterwards; with
    "removed", as it was. "ready" is told of readiness and of its failure, see `process.ready`. "missed" is
    about no process: `count` events before the next one were dropped, since the client read too slowly."""

    event: Happening
    time: int
    process: ProcessInfo | UnsetType = UNSET
    count: int | UnsetType = UNSET
