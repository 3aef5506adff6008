"""To type into a process, and to size its terminal.

Knows shapes and units; must not know what a server does with them.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from msgspec import UNSET, Meta, UnsetType

from mhnos_runtime.wire.messages.base import Integer, Message, Name, Part

MAX_CELLS = 2000  # columns or rows of a terminal: more than any screen, and small enough for every program
DEFAULT_COLS = 100
DEFAULT_ROWS = 30
Cells: TypeAlias = Annotated[int, Meta(ge=1, le=MAX_CELLS)]


class PtySize(Part):
    cols: Cells
    rows: Cells


class Write(Message, tag="write"):
    """`data` may hold lone surrogates (JavaScript sends halves of pairs): give it to text.SurrogateJoiner."""

    pid: Integer
    data: str


class OpenInput(Message, tag="openInput"):
    """Begin, or go on, to number what a client types into a process. `client`: its own name, for always."""

    pid: Integer
    client: Name


class CloseStdin(Message, tag="closeStdin"):
    pid: Integer


class Resize(Message, tag="resize"):
    pid: Integer
    cols: Cells
    rows: Cells


class InputOpened(Message, tag="inputOpened"):
    """`next`: the first byte that was not typed yet.

    `uncertain_from`: a server was killed while it typed the bytes from here up to `next`. Nobody knows if
    they were typed; they countyped.
    """

    pid: int
    next: int
    uncertain_from: int | UnsetType = UNSET


class StdinClosed(Message, tag="stdinClosed"):
    pid: int


class InputAck(Message, tag="inputAck"):
    """All input of this client below `next` was typed."""

    pid: int
    next: int
