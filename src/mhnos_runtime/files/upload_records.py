"""The records of uploads in the state directory, one file each: written whole, durable, bounded. Knows their
form, and no file of the workspace."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from mhnos_runtime import bounds
from mhnos_runtime.errors import LimitReached, MhnosError, Unavailable
from mhnos_runtime.files.draft import Condition, Kept, sync_folder

VERSION = 1
#: A path of 4,096 characters, each escaped, and 8 KiB of metadata, which is as much as a header has.
MAX_RECORD_BYTES = 40 * 1024
#: What nobody can read, such as another version's, is removed when it is so old.
_UNREADABLE_SECONDS = 7 * 86_400
_ID = re.compile(r"[0-9a-f]{32}\Z")

Size = Annotated[int, Meta(ge=0, le=bounds.MAX_INTEGER)]


class Done(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What has become of an upload: a file with this version, mode and mtime. at: seconds since the epoch."""

    version: str
    mode: int
    mtime_ms: int
    at: float


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One upload. principal: whose. path: of the target, canonical. kept: where the data is. length: None
    until it is known. created: seconds since the epoch. metadata: as it came. mode, mtime_ms, versions,
    absent: for the file that it becomes. unchecked_from: what follows came with a checksum that has not been
    compared, and counts as not received. done: the file is in its place."""

    id: str
    principal: str
    path: str
    kept: Kept
    length: Size | None
    created: float
    metadata: str = ""
    mode: int | None = None
    mtime_ms: int | None = None
    versions: frozenset[str] | None = None
    exists: bool = False
    absent: bool = False
    unchecked_from: Size | None = None
    done: Done | None = None

    @property
    def condition(self) -> Condition:
        return Condition(self.versions, self.exists, self.absent)


class _File(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    upload: Record


def new_id() -> str:
    """One that nobody can guess: whoever has it still needs a grant."""
    return secrets.token_hex(16)


def is_id(text: str) -> bool:
    return _ID.match(text) is not None


class Records:
    """Blocks. One `load`, then any number of `save` and `remove`, of one record one at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self) -> Iterator[Record]:
        """What a former server left. Drafts of records, and what cannot be read and is old, are removed."""
        with suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            for entry in entries:
                record = self._read(entry.name)
                if record is not None:
                    yield record
                elif entry.name.startswith(".") or _is_old(entry):
                    with suppress(OSError):
                        os.unlink(entry.path)

    def save(self, record: Record) -> None:
        """Durable when this returns. Raises LimitReached (disk-full), Unavailable."""
        draft = self._folder / f".{record.id}.{secrets.token_hex(8)}"
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._replace(draft, self._path(record.id), msgspec.json.encode(_File(VERSION, record)))
        except OSError as error:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            raise _not_kept(error) from error

    def remove(self, upload_id: str) -> None:
        """Where this fails the record stays, without what it is of, until it is removed for its age."""
        with suppress(OSError):
            self._path(upload_id).unlink()

    def _path(self, upload_id: str) -> Path:
        return self._folder / f"{upload_id}.json"

    def _replace(self, draft: Path, path: Path, data: bytes) -> None:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.rename(draft, path)
        folder = os.open(self._folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sync_folder(folder)
        finally:
            os.close(folder)

    def _read(self, name: str) -> Record | None:
        """None where this is no record, or none of this version."""
        upload_id, _, ending = name.partition(".")
        if ending != "json" or not is_id(upload_id):
            return None
        try:
            # Not blocking, and through no link: what somebody may have put there must not hold the server up.
            descriptor = os.open(
                self._folder / name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
            )
            with open(descriptor, "rb") as file:
                regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
                data = file.read(MAX_RECORD_BYTES + 1) if regular else b""
            found = msgspec.json.decode(data, type=_File)
        except (OSError, ValueError, RecursionError, msgspec.MsgspecError):
            return None
        fits = len(data) <= MAX_RECORD_BYTES and found.version == VERSION and found.upload.id == upload_id
        return found.upload if fits else None


def _is_old(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.stat(follow_symlinks=False).st_mtime < time.time() - _UNREADABLE_SECONDS
    except OSError:
        return False


def _not_kept(error: OSError) -> MhnosError:
    text = f"The upload could not be noted in the state directory: {error.strerror}"
    hint = "look at the disk of the state directory"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LimitReached(text, code="disk-full", hint=hint)
    return Unavailable(text, hint=hint)
