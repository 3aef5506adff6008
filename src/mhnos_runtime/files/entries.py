"""What stands at a path, as one value: the form in which every door shows a file. Knows stat data, and no
workspace."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Literal

from mhnos_runtime.files.version import settled, version_of

Kind = Literal["file", "directory", "link", "other"]

_KINDS: dict[int, Kind] = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}


@dataclass(frozen=True, slots=True)
class Entry:
    """path: from the top of the workspace; bytes that are not UTF-8 stand in it as `\\xNN`, and then it is
    `opaque`: no request can name it. kind: "other" is a FIFO, a socket or a device. size: bytes of a file, 0
    for all else. mode: permission bits. mtime_ms: epoch ms. target: of a link, as it is written."""

    path: str
    kind: Kind
    size: int
    mode: int
    mtime_ms: int
    version: str
    target: str | None = None
    opaque: bool = False


def kind_of(mode: int) -> Kind:
    """mode: st_mode."""
    return _KINDS.get(stat.S_IFMT(mode), "other")


def entry_of(status: os.stat_result, path: str, target: bytes | None = None) -> Entry:
    """path: canonical, with `surrogateescape` for bytes that are not UTF-8, as os.fsdecode and paths.spell
    give it. target: of a link. The version is good only where `status` is settled (see version.settled)."""
    kind, told = kind_of(status.st_mode), text_of(os.fsencode(path))
    return Entry(
        path=told,
        kind=kind,
        size=status.st_size if kind == "file" else 0,
        mode=stat.S_IMODE(status.st_mode),
        mtime_ms=status.st_mtime_ns // 1_000_000,
        version=version_of(status),
        target=None if target is None else text_of(target),
        opaque=told != path,
    )


def entry_at(fd: int, path: str) -> Entry:
    """Of what an O_PATH descriptor is open for, a link itself included. path: as for entry_of. Waits for some
    ms where it has just changed, so that its version is good. Raises OSError."""
    status = settled(lambda: os.fstat(fd))
    return entry_of(status, path, os.readlink(b"", dir_fd=fd) if stat.S_ISLNK(status.st_mode) else None)


def text_of(name: bytes) -> str:
    """A name, path or target for people: bytes that are not UTF-8 as `\\xNN`."""
    return name.decode(errors="backslashreplace")
