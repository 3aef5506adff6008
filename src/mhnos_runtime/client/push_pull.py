"""Files of a workspace as one mapping: batches of `fsync` messages for a push, what an archive brings for a
pull. Pure."""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from typing import IO

import msgspec

from mhnos_runtime.client.errors import RequestFailed
from mhnos_runtime.client.tar_stream import SKIPPED, members, understood
from mhnos_runtime.wire import messages as m
from mhnos_runtime.wire.content import numbers

BATCH_BYTES = 8 * 1024 * 1024  # up to 4 times as much as arrays of numbers
MAX_LINKS = 40  # behind each other, as in the kernel (path_resolution(7))


def batches(files: Mapping[str, bytes | None]) -> Iterator[list[m.FileEntry]]:
    """The files in batches of BATCH_BYTES, without those that are larger themselves; None is a directory."""
    batch: list[m.FileEntry] = []
    size_bytes = 0
    for path, content in files.items():
        if is_large(content):
            continue
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


def is_large(content: bytes | None) -> bool:
    """Whether a file is too large for a batch."""
    return content is not None and len(content) > BATCH_BYTES


def pulled(pieces: Iterable[bytes]) -> dict[str, bytes | None]:
    """What a tar stream brings, by path; None is a directory. A link to a file is that file, other links are
    left out. Raises ProtocolViolation."""
    found: dict[str, bytes | None] = {}
    links: dict[str, str] = {}
    with understood():
        _take(members(pieces), found, links)
    # Something is told in it, and it is no file of the workspace; see download_directory.
    if found and next(reversed(found)) == f"/{SKIPPED}":
        found.popitem()
    for path in links:
        if (linked := _behind(path, links, found)) is not None:
            found[path] = linked
    return found


def _take(
    all_: Iterable[tuple[tarfile.TarInfo, IO[bytes] | None]],
    found: dict[str, bytes | None],
    links: dict[str, str],
) -> None:
    for member, content in all_:
        path = posixpath.normpath("/" + member.name)
        if content is not None:
            found[path] = content.read()
        elif member.isdir() and path != "/":
            found[path] = None
        elif member.issym():
            links[path] = posixpath.normpath(posixpath.join(posixpath.dirname(path), member.linkname))


def _behind(path: str, links: Mapping[str, str], found: Mapping[str, bytes | None]) -> bytes | None:
    for _ in range(MAX_LINKS):
        if path not in links:
            return found.get(path)
        path = links[path]
    return None


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


def _checked(answer: m.FsyncResult) -> m.FsyncResult:
    if answer.status != "success":
        raise RequestFailed(answer.error if isinstance(answer.error, str) else f"{answer.operation} failed")
    return answer
