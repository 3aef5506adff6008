"""To watch a process: attach, what it writes, what is missing of that, and how far a client has come.

Knows shapes and units; must not know what a server does with them.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from mhnos_runtime.wire.messages.base import Count, Integer, Message, Offset, Stream
from mhnos_runtime.wire.messages.processes import ProcessInfo, ProcessStatus


class Attach(Message, tag="attach"):
    """Where to start: `from_` an offset, "start" (kept) or "end"; or `tail`, the last n bytes.

    `repaint`: have a full-screen program draw its screen anew, for a client that starts at the end. `acks`:
    the client holds what it has not acknowledged, from the first byte on.
    """

    pid: Integer
    from_: Offset | Literal["start", "end"] | None = msgspec.field(name="from", default=None)
    tail: Count | None = None
    repaint: bool = False
    acks: bool = False


class Detach(Message, tag="detach"):
    pid: Integer


class Ack(Message, tag="ack"):
    """Everything below `offset` was consumed."""

    pid: Integer
    offset: Offset


class Attached(Message, tag="attached"):
    """`from_`: offset of the first byte sent; `next`: head of the log at that moment."""

    pid: int
    status: ProcessStatus
    from_: int | UnsetType = msgspec.field(name="from", default=UNSET)
    next: int | UnsetType = UNSET
    process: ProcessInfo | UnsetType = UNSET


class Detached(Message, tag="detached"):
    pid: int


class Output(Message):
    """`offset`: of the first byte read for this frame, `next`: after the last. `timestamp`: epoch ms."""

    pid: int
    data: str
    offset: int | UnsetType = UNSET
    next: int | UnsetType = UNSET
    timestamp: int | UnsetType = UNSET

    @property
    def stream(self) -> Stream:
        return "stderr" if isinstance(self, Stderr) else "stdout"


class Stdout(Output, tag="stdout"):
    pass


class Stderr(Output, tag="stderr"):
    pass


class Gap(Message, tag="gap"):
    """The bytes from `from_` up to `to` (exclusive) are no longer kept."""

    pid: int
    from_: int = msgspec.field(name="from")
    to: int


class Replay(Message, tag="replay"):
    """What follows from `from_` up to `to` was written before the attach: a terminal must not answer it."""

    pid: int
    from_: int = msgspec.field(name="from")
    to: int
