"""To type into a process, and to size its terminal.

Knows shapes and units; must not know what a server does with them.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from msgspec import UNSET, Meta, UnsetType

from mhnos_runtime.wire.messages.base import Handle, Message, Name, Part

MAX_CELLS = 2000  # columns or rows of a terminal: more than any screen, and small enough for every program
DEFAULT_COLS = 100
DEFAULT_ROWS = 30
Cells: TypeAlias = Annotated[int, Meta(ge=1, le=MAX_CELLS)]


class PtySize(Part):
    """The size of a terminal in character cells."""

    cols: Cells
    rows: Cells


class Write(Message, tag="write"):
    """Type text. `data` may hold lone surrogates (JavaScript cuts pairs): text.SurrogateJoiner joins them."""

    pid: Handle
    data: str


class OpenInput(Message, tag="openInput"):
    """Begin or go on to number the bytes that a client types. `client`: its name, the same on every
    connection."""

    pid: Handle
    client: Name


class CloseStdin(Message, tag="closeStdin"):
    """End the input of a process: a pipe is closed, into a terminal the end-of-file character is typed."""

    pid: Handle


class Resize(Message, tag="resize"):
    """Set the size of a terminal, in character cells. Ignored for a process on pipes."""

    pid: Handle
    cols: Cells
    rows: Cells


class InputOpened(Message, tag="inputOpened"):
    """`next`: the number of the first byte that was not typed yet.

    `uncertain_from`: a server was killed while it typed the bytes from here up to `next`. Nobody knows
    whether they were typed; they count as typed.
    """

    pid: int
    next: int
    uncertain_from: int | UnsetType = UNSET


class StdinClosed(Message, tag="stdinClosed"):
    """The answer to CloseStdin."""

    pid: int


class InputAck(Message, tag="inputAck"):
    """All bytes of this client with numbers below `next` were typed."""

    pid: int
    next: int
