"""Files in `fsync` messages: batches for a push, contents of a pull. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from mhnos_runtime.client.errors import ProtocolViolation, RequestFailed
from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.wire import messages as m
from mhnos_runtime.wire.content import content_chunks, numbers

BATCH_BYTES = 8 * 1024 * 1024  # up to 4 times as much as arrays of numbers


def batches(files: Mapping[str, bytes | None]) -> Iterator[list[m.FileEntry]]:
    """The files in batches of BATCH_BYTES, a larger file alone; None is a directory."""
    batch: list[m.FileEntry] = []
    size_bytes = 0
    for path, content in files.items():
        if batch and size_bytes + len(content or b"") > BATCH_BYTES:
            yield batch
            batch, size_bytes = [], 0
        batch.append(_entry(path, content))
        size_bytes += len(content or b"")
    if batch:
        yield batch


def add(total: m.PushResults, answer: m.FsyncResult) -> None:
    """Add one batch's results. Raises RequestFailed if the server refused the batch."""
    part = _checked(answer).results
    if isinstance(part, m.PushResults):
        total.synced += part.synced
        total.failed += part.failed
        total.errors.extend(part.errors)


def contents(answer: m.FsyncResult) -> dict[str, bytes | None]:
    """What a pull brought, by path; None is a directory. Raises RequestFailed if the server refused it, and
    ProtocolViolation for content that is none."""
    files = _checked(answer).files
    return {entry.path: _content(entry) for entry in files} if isinstance(files, list) else {}


def _entry(path: str, content: bytes | None) -> m.FileEntry:
    if content is None:
        return m.FileEntry(path=path, kind="directory")
    return m.FileEntry(path=path, content=_encoded(content))


def _encoded(content: bytes) -> msgspec.Raw:
    """JSON text where the bytes are a text: a third of the size of an array of numbers."""
    try:
        return msgspec.Raw(msgspec.json.encode(content.decode()))
    except UnicodeDecodeError:
        return numbers(content)


def _content(entry: m.FileEntry) -> bytes | None:
    if entry.kind == "directory":
        return None
    try:
        return b"".join(content_chunks(entry.content))
    except InvalidRequest as error:
        raise ProtocolViolation(f"{entry.path}: {error.message}") from error


def _checked(answer: m.FsyncResult) -> m.FsyncResult:
    if answer.status != "success":
        raise RequestFailed(answer.error if isinstance(answer.error, str) else f"{answer.operation} failed")
    return answer
