"""To watch a process: attach, its output, gaps in that, and acknowledgements.

Knows shapes and units; must not know what a server does with them.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from mhnos_runtime.wire.messages.base import Count, Handle, Message, Offset, Stream
from mhnos_runtime.wire.messages.processes import ProcessInfo, ProcessStatus


class Attach(Message, tag="attach"):
    """Receive the output of a process, from an offset: `from_`, "start" (0) or "end"; or its last `tail`
    bytes; or what was captured `since` a moment (epoch ms), and up to a second of what was before it.

    `repaint`: have a full-screen program draw its screen anew, for a client that starts at the end. `acks`:
    the client acknowledges from the first byte on: what it has not acknowledged is not overwritten.
    """

    pid: Handle
    from_: Offset | Literal["start", "end"] | None = msgspec.field(name="from", default=None)
    tail: Count | None = None
    since: Count | None = None
    repaint: bool = False
    acks: bool = False


class Detach(Message, tag="detach"):
    """Receive no more output of a process."""

    pid: Handle


class Ack(Message, tag="ack"):
    """The client has used all output below `offset`."""

    pid: Handle
    offset: Offset


class Attached(Message, tag="attached"):
    """The replay is over. `from_`: offset of its first byte. `next`: end of the output when the attach
    came."""

    pid: int
    status: ProcessStatus
    from_: int | UnsetType = msgspec.field(name="from", default=UNSET)
    next: int | UnsetType = UNSET
    process: ProcessInfo | UnsetType = UNSET


class Detached(Message, tag="detached"):
    """The answer to Detach, also for a process that is not there."""

    pid: int


class Output(Message):
    """`data`: decoded as UTF-8. `offset`: of the first byte read for this frame; `next`: behind the last one.
    `timestamp`: epoch ms of a replayed piece."""

    pid: int
    data: str
    offset: int | UnsetType = UNSET
    next: int | UnsetType = UNSET
    timestamp: int | UnsetType = UNSET

    @property
    def stream(self) -> Stream:
        """Which stream of the process it was."""
        return "stderr" if isinstance(self, Stderr) else "stdout"


class Stdout(Output, tag="stdout"):
    """Output on standard output, or of a terminal."""


class Stderr(Output, tag="stderr"):
    """Output on standard error."""


class Gap(Message, tag="gap"):
    """The bytes from_ <= offset < to are no longer kept, or were dropped for this client."""

    pid: int
    from_: int = msgspec.field(name="from")
    to: int


class Replay(Message, tag="replay"):
    """The bytes from_ <= offset < to were written before the attach: a terminal must not answer them."""

    pid: int
    from_: int = msgspec.field(name="from")
    to: int
