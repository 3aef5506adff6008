"""What an archive says of one thing that it holds, whatever its format. Knows no file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

EntryKind = Literal["file", "directory", "link", "hardlink", "refused"]


@dataclass(slots=True)
class ArchiveEntry:
    """name: as the archive has it, not checked. size: bytes of content that follow, of a file. target: of a
    link its text, of a hard link the name of an earlier entry. why: it is refused."""

    name: bytes
    kind: EntryKind
    size: int = 0
    mode: int = 0o644
    mtime_ns: int | None = None
    target: bytes = b""
    why: str = ""


@dataclass(frozen=True, slots=True)
class End:
    """The content of the entry is complete. why: it cannot be what was meant."""

    why: str = ""


END = End()

Event: TypeAlias = ArchiveEntry | memoryview | End
"""Of each entry: itself, its content in pieces, its end."""
