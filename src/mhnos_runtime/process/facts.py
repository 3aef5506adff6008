"""What a server knows of a process beyond the supervisor's own record: one typed record with a version.

The supervisor stores it unread and hands it to the next server, which may be of another version; a server
that was taken over, or a damaged disk, may have left anything there. Knows no event loop and no client.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from mhnos_runtime.bounds import MAX_MS
from mhnos_runtime.process.ready import Port, Readiness, Watch
from mhnos_runtime.sandbox import Isolation

#: Of the stored form. It changes with every field whose name, type or meaning changes, and with it the
#: version of what a supervisor hands over: a reload is refused rather than that what runs is unknown.
VERSION = 2


class Unreadable(ValueError):
    """Stored facts that this server cannot use. Says why in one line."""


class Secrets(msgspec.Struct, frozen=True):
    """token: what the program's kind has as `{token}`."""

    token: str | None = None


class SpawnKey(msgspec.Struct, frozen=True):
    """What makes a repeated spawn request find the process that the first one started. name: the client's.
    request: a digest of the whole request."""

    name: str
    request: str


class Limits(msgspec.Struct, frozen=True):
    """Bounds on a process, 0 for none; see sandbox.Policy."""

    memory_bytes: int
    tasks: int
    cpu_percent: int
    cpu_seconds: int
    file_bytes: int
    open_files: int


class Found(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is found out about a process after its start, or changed. Replaces the fields of ProcessFacts that
    it has."""

    ready: Readiness | UnsetType = UNSET
    ports: tuple[Port, ...] | UnsetType = UNSET
    name: str | UnsetType | None = UNSET

    def to_plain(self) -> dict[str, Any]:
        """As JSON has it, see `ProcessFacts.decode`."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    def known(self) -> dict[str, Any]:
        """The fields that it has."""
        return {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not UNSET}

    def followed_by(self, later: Found) -> Found:
        """Both as one."""
        return msgspec.structs.replace(self, **later.known())


class ProcessFacts(msgspec.Struct, frozen=True, kw_only=True):
    """kind, command, args, name, cwd, linger_ms, timeout_ms, remove: as the request said; the name as it was
    changed since. sandbox: the level. isolation: what it really got. limits: None where not known. single:
    whether its kind runs one at a time. early_exit: what an end with an error before it was ready is called,
    or "". watch: what shows that it is ready; where nobody looks None, and so is ready.
    within: pid of the process whose sandbox it shares, 0 for none.
    """

    version: int = VERSION
    kind: str
    command: str
    args: tuple[str, ...]
    name: str | None
    cwd: str
    linger_ms: Annotated[int, msgspec.Meta(ge=0, le=MAX_MS)] | None
    timeout_ms: int | None
    remove: bool
    limits: Limits | None
    sandbox: str
    isolation: Isolation | None
    key: SpawnKey | None
    single: bool
    early_exit: str
    ports: tuple[Port, ...]
    watch: Watch | None
    ready: Readiness | None
    secrets: Secrets
    within: int

    def to_plain(self) -> dict[str, Any]:
        """As JSON has it, for the supervisor."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    @classmethod
    def decode(cls, stored: Mapping[str, Any]) -> ProcessFacts:
        """What `to_plain` made, and `Found.to_plain` changed. Fields that it does not know are left out.

        Raises Unreadable for another version, and for what could not be shown to a client.
        """
        version = stored.get("version")
        if version != VERSION:
            raise Unreadable(f"facts of version {str(version)[:20]!r}; this server reads {VERSION}")
        try:
            facts = msgspec.convert(stored, cls)
            # What JSON cannot hold, such as half of a surrogate pair, could not be sent.
            msgspec.json.encode(facts)
            re.compile(facts.watch.line if facts.watch is not None else "")
        except (ValueError, TypeError, RecursionError, OverflowError, re.error) as error:
            raise Unreadable(" ".join(str(error).split())[:200] or type(error).__name__) from error
        if (facts.watch is None) != (facts.ready is None):
            raise Unreadable("watch and ready do not fit together")
        return facts

    def with_found(self, found: Found) -> ProcessFacts:
        return msgspec.structs.replace(self, **found.known())


#: Of a process whose facts cannot be read: it is listed, and can be ended.
UNKNOWN = ProcessFacts(
    kind="unknown",
    command="",
    args=(),
    name=None,
    cwd="/",
    linger_ms=None,
    timeout_ms=None,
    remove=False,
    limits=None,
    sandbox="unknown",
    isolation=None,
    key=None,
    single=False,
    early_exit="",
    ports=(),
    watch=None,
    ready=None,
    secrets=Secrets(),
    within=0,
)
