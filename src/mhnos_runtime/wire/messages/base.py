"""What all messages are made of: the two base structs, and numbers and texts with their bounds.

Knows units and bounds; must not know any message.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from mhnos_runtime import bounds

MAX_ID_BYTES = 4096  # an id is echoed in every answer; a counter or a UUID is what clients send
MAX_INTEGER = bounds.MAX_INTEGER  # also bounds arithmetic on what clients send
MAX_NAME = 128  # characters of a key or of a client's name: a UUID with something before it

RequestId: TypeAlias = Raw | UnsetType
Integer: TypeAlias = Annotated[int, Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]
Offset: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]
Count: TypeAlias = Offset
Milliseconds: TypeAlias = Annotated[int, Meta(ge=0, le=bounds.MAX_MS)]
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
Title: TypeAlias = Annotated[str, Meta(max_length=bounds.TITLE_CHARACTERS)]
Word: TypeAlias = Annotated[str, Meta(max_length=bounds.WORD_CHARACTERS)]
ProcessName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=bounds.NAME_CHARACTERS)]
#: Which process: its pid, or its name, which is never digits alone. A name finds the process that runs, else
#: the one that ended last.
Handle: TypeAlias = (
    Integer | Annotated[str, Meta(min_length=1, max_length=bounds.NAME_CHARACTERS, pattern="[^0-9]")]
)
#: One of a list, where a pattern would be tried for each item before the list's length is known. No process
#: has a name of digits.
ListedHandle: TypeAlias = Integer | ProcessName
Path: TypeAlias = Annotated[str, Meta(max_length=bounds.PATH_CHARACTERS)]
Stream: TypeAlias = Literal["stdout", "stderr"]


class Part(msgspec.Struct, rename="camel", omit_defaults=True):
    """A value inside a message. A field that holds its default is not sent."""


class Message(Part, kw_only=True, tag_field="type"):
    """A text frame. `id`: any JSON of the requester's, which the answer repeats byte for byte."""

    id: RequestId = UNSET
