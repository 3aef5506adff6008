"""The whole workspace, pushed and pulled, as protocol 1.0 does it.

Knows shapes and units; must not know what a server does with them.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from mhnos_runtime.wire.messages.base import MAX_INTEGER, Integer, Message, Part, Word

MAX_MESSAGE_BYTES = 128 << 20  # a 1.0 push of 5 files of 5 MB as arrays of numbers is 100 MB in one message
_CONTENT_SCHEMAS = [
    {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}},
    {"type": ["string", "null"]},
]
FileContent: TypeAlias = Annotated[Raw, Meta(extra_json_schema={"anyOf": _CONTENT_SCHEMAS})]
Mtime: TypeAlias = Integer | Annotated[float, Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]


class FileEntry(Part):
    """A file or directory. `path`: in the workspace. `kind`: "file" or "directory". `content`: numbers from 0
    to 255, or a text, which is written as UTF-8; wire.content decodes it. `mtime`: epoch ms."""

    path: str
    kind: str = msgspec.field(default_factory=lambda: "file")  # a factory: always sent
    content: FileContent | UnsetType = UNSET
    mtime: Mtime | None = None


class FileFailure(Part):
    """One file that was not written or not read. `path`: in the workspace. `error`: why, for people."""

    path: str
    error: str


class PushResults(Part):
    """`synced`, `failed`: how many files were written, and were not. `errors`: which were not, and why."""

    synced: int
    failed: int
    errors: list[FileFailure]


class Fsync(Message, tag="fsync"):
    """`operation`: "push", with `files`, or "pull". Any other is answered as an error."""

    operation: Word = "undefined"  # as for Spawn.process_type: "Unknown operation: undefined"
    files: list[FileEntry] = msgspec.field(default_factory=list)


class FsyncResult(Message, tag="fsyncResult"):
    """`results`: of a push. `files`: of a pull. `errors`: what a pull left out, and why. `error`: why
    `status` is "error"."""

    operation: str
    status: Literal["success", "error"]
    results: PushResults | UnsetType = UNSET
    files: list[FileEntry] | UnsetType = UNSET
    errors: list[FileFailure] | UnsetType = UNSET
    error: str | UnsetType = UNSET
