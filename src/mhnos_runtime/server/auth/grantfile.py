"""The file of stored grants: only digests of tokens, for the one server that writes it.

Knows the file and its form; nothing of who asks for what.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from mhnos_runtime.errors import MhnosError, Unavailable
from mhnos_runtime.server.auth.grants import Grant, Scope
from mhnos_runtime.server.auth.token import sync_folder
from mhnos_runtime.server.auth.token_store import writable_by_others

FILE_NAME = "grants.json"
VERSION = 1
MAX_GRANTS = 1024
#: Of one grant in the file: some hundred pids, or ten long paths.
MAX_GRANT_BYTES = 4096
MAX_FILE_BYTES = MAX_GRANTS * (MAX_GRANT_BYTES + 1) + 1024

#: What people read, log lines carry and a URL's path holds as it is.
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._@+-]{0,62}[A-Za-z0-9._@+-])?\Z")
NAME_ALLOWED = "1 to 64 of A-Z a-z 0-9 . _ @ + - and inner spaces, beginning with a letter or digit"
_DIGEST = r"^[0-9a-f]{64}$"
_Signature = tuple[int, ...]
#: In place of a file's signature: there is none.
_ABSENT: _Signature = ()

Pids = Annotated[list[Annotated[int, Meta(ge=0, le=2**32 - 1)]], Meta(min_length=1, max_length=512)]
Paths = Annotated[
    list[Annotated[str, Meta(pattern="^/", max_length=2048)]], Meta(min_length=1, max_length=64)
]
Ports = Annotated[list[Annotated[int, Meta(ge=1, le=65535)]], Meta(min_length=1, max_length=512)]
Scopes = Annotated[list[Scope], Meta(min_length=1, max_length=len(Scope))]


class Rights(msgspec.Struct, forbid_unknown_fields=True):
    """What a grant is for: as it is asked for, kept and shown."""

    name: str
    scopes: Scopes
    processes: Pids | None = None
    paths: Paths | None = None
    ports: Ports | None = None
    read_only: bool = False


class Stored(Rights, kw_only=True):
    """A grant in the file. Times are milliseconds since the epoch. server_id: of one that is limited to
    processes, the start of the runtime that they belong to: after another start, others have their pids."""

    digest: Annotated[str, Meta(pattern=_DIGEST)]
    created: int
    expires: int | None = None
    last_used: int | None = None
    server_id: str | None = None

    def grant(self) -> Grant:
        return Grant(
            principal=principal(self.name),
            scopes=frozenset(self.scopes),
            processes=None if self.processes is None else frozenset(self.processes),
            paths=None if self.paths is None else tuple(self.paths),
            ports=None if self.ports is None else frozenset(self.ports),
            read_only=self.read_only,
            expires=None if self.expires is None else self.expires / 1000,
        )

    def fits(self) -> bool:
        """Whether it stays within MAX_GRANT_BYTES, also once it has been used."""
        return len(msgspec.json.encode(msgspec.structs.replace(self, last_used=2**53))) <= MAX_GRANT_BYTES


class _File(msgspec.Struct, forbid_unknown_fields=True):
    """A field that this version does not know may be a limit, so that none is passed over."""

    version: int
    grants: list[Stored]


def principal(name: str) -> str:
    """Of a stored grant: never the operator's, whatever its name."""
    return f"token:{name}"


def key_of(name: str) -> str:
    """Two names with the same key are too much alike."""
    return name.casefold()


class GrantFile:
    """Where stored grants are kept, mode 0600. One `load` or `save` at a time."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / FILE_NAME
        self._left: _Signature | None = None

    def load(self) -> tuple[list[Stored], str]:
        """The grants, and what is wrong: then there are none, and the file was moved aside."""
        for draft in self._path.parent.glob(f".{FILE_NAME}.*"):
            # Of a server that was killed.
            with suppress(OSError):
                draft.unlink()
        try:
            return self._read(), ""
        except FileNotFoundError:
            self._left = _ABSENT
            return [], ""
        except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            return [], f"{error}; {self._set_aside()}"

    def save(self, grants: Sequence[Stored]) -> None:
        """Replace the file at once, durable when this returns. Raises Unavailable. May block for a while."""
        draft = self._path.with_name(f".{FILE_NAME}.{secrets.token_hex(8)}")
        self._left = None
        try:
            left = self._replace(draft, msgspec.json.encode(_File(VERSION, list(grants))))
            sync_folder(self._path.parent)
        except OSError as error:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            raise _not_kept(error) from error
        self._left = left

    def changed(self) -> bool:
        """Whether it is not as the last `load` or `save` left it, or could not be saved. One stat."""
        try:
            return _signature(os.stat(self._path, follow_symlinks=False)) != self._left
        except FileNotFoundError:
            return self._left != _ABSENT
        except OSError:
            return True

    def _replace(self, draft: Path, data: bytes) -> _Signature:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
            os.rename(draft, self._path)
            # By the descriptor: by its name it may be another one already.
            return _signature(os.fstat(descriptor))

    def _read(self) -> list[Stored]:
        # Not blocking, and through no link: what a process may have put there must not hold the server up.
        descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("it is not a file")
            if status.st_mode & 0o077 or status.st_uid not in (os.geteuid(), 0):
                raise ValueError(f"others could change it (mode {stat.S_IMODE(status.st_mode):04o})")
            if others := writable_by_others(self._path.parent):
                raise ValueError(others)
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ValueError(f"more than {MAX_FILE_BYTES} bytes")
        grants = _parse(data)
        self._left = _signature(status)
        return grants

    def _set_aside(self) -> str:
        aside = self._path.with_name(f"{FILE_NAME}.set-aside.{secrets.token_hex(4)}")
        try:
            os.rename(self._path, aside)
        except OSError as error:
            return f"it could not be moved aside: {error.strerror}"
        return f"it was moved to {aside}"


def _parse(data: bytes) -> list[Stored]:
    found = msgspec.json.decode(data, type=_File)
    if found.version != VERSION:
        raise ValueError(f"version {found.version}, expected {VERSION}")
    if len(found.grants) > MAX_GRANTS:
        raise ValueError(f"{len(found.grants)} grants, expected {MAX_GRANTS} at most")
    if not all(NAME.match(each.name) for each in found.grants):
        raise ValueError("a name that is none")
    if len({key_of(each.name) for each in found.grants}) != len(found.grants):
        raise ValueError("two grants of one name")
    if len({each.digest for each in found.grants}) != len(found.grants):
        raise ValueError("two grants of one token")
    return found.grants


def _signature(status: os.stat_result) -> _Signature:
    """With mode and owner: a change right after a write may fall into the same tick of the file's times."""
    times = status.st_mtime_ns, status.st_ctime_ns
    return *times, status.st_dev, status.st_ino, status.st_size, status.st_mode, status.st_uid


def _not_kept(error: OSError) -> MhnosError:
    return Unavailable(
        f"The grants could not be written: {error.strerror}", hint="look at the disk of the state directory"
    )
