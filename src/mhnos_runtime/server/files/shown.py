"""A file as clients are shown it, in messages and in JSON of HTTP. Knows values only."""

from __future__ import annotations

from mhnos_runtime.files.entries import Entry
from mhnos_runtime.wire import messages as m


def file_info(entry: Entry) -> m.FileInfo:
    return m.FileInfo(
        entry.path,
        entry.kind,
        entry.size,
        entry.mode,
        entry.mtime_ms,
        entry.version,
        entry.target,
        entry.opaque,
    )
