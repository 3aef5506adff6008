"""The record of what a client removed, as the trash stores it. Knows one form; not where it is stored."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass

from mhnos_runtime.files.entries import Kind

VERSION = 1
"""Of a record's form."""

MAX_RECORD_BYTES = 64 * 1024
"""A path of 4,096 bytes takes six times as many in JSON at most."""


@dataclass(frozen=True, slots=True)
class Record:
    """An item as it is stored. path: where it stood, see paths.spell. removed_ms: epoch ms."""

    path: str
    kind: Kind
    size: int
    removed_ms: int
    version: int = VERSION

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def from_json(data: bytes) -> Record:
        """Raises ValueError."""
        try:
            stored: dict[str, object] = json.loads(data)
            if not _is_sound(stored):
                raise ValueError(f"not a record of version {VERSION}")
            os.fsencode(str(stored["path"]))
            return Record(**stored)  # type: ignore[arg-type]
        except (AttributeError, TypeError, RecursionError, UnicodeError) as error:
            raise ValueError(str(error)) from None


def _is_sound(stored: dict[str, object]) -> bool:
    numbers = [stored.get(name) for name in ("size", "removed_ms", "version")]
    return (
        all(type(each) is int for each in numbers)
        and stored["version"] == VERSION
        and isinstance(stored.get("path"), str)
        and stored.get("kind") in ("file", "directory", "link", "other")
    )
