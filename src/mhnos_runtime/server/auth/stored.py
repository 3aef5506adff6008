"""Stored grants: made, listed, revoked, and found by their token. The only writer of their file.

Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

import msgspec

from mhnos_runtime.errors import InvalidRequest, LimitReached, NotFound, Unavailable
from mhnos_runtime.observe import logs
from mhnos_runtime.server.auth import grantfile
from mhnos_runtime.server.auth.grantfile import GrantFile, Rights, Stored
from mhnos_runtime.server.auth.grants import Grant
from mhnos_runtime.server.auth.live import Live
from mhnos_runtime.server.auth.token import MAX_TOKEN_CHARS, TOKEN_BYTES, digest_of
from mhnos_runtime.server.auth.token_watch import REPORT_SECONDS

#: How long the last use of a grant is only in memory (debounced): a client that reconnects must not cost a
#: write each time. What could not be written is tried again as often.
WRITE_SECONDS = 60.0
#: Between two looks at the file: for so long at most one that a process has put there stays.
LOOK_SECONDS = 1.0
#: Ten years. A grant that is to last longer takes no expiry.
MAX_LIFETIME_MS = 10 * 366 * 86_400_000

_log = logs.get("server")

T = TypeVar("T")


class StoredGrants:
    """The grants in memory are in force. The file follows them, for the next server.

    server_id: of this start of the runtime. now: seconds since the epoch.
    """

    def __init__(
        self,
        file: GrantFile,
        live: Live,
        loop: asyncio.AbstractEventLoop,
        server_id: str,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._file = file
        self._live = live
        self._loop = loop
        self._server_id = server_id
        self._now = now
        self._by_name: dict[str, Stored] = {}
        # A token is looked up by its SHA-256: whoever measures how long that takes learns nothing of a token.
        self._by_digest: dict[str, Stored] = {}
        # Keys of grants that were revoked, and may still be in the file
        self._revoked: set[str] = set()
        self._writing = asyncio.Lock()
        self._unsaved = False
        self._reported_at = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._load()
        self._looking = loop.call_later(LOOK_SECONDS, self._look)

    def find(self, candidate: str) -> Grant | None:
        """What this token grants at this moment."""
        if len(candidate) > MAX_TOKEN_CHARS:
            return None
        found = self._by_digest.get(digest_of(candidate).hex())
        if found is None or self._expired(found):
            return None
        found.last_used = self._now_ms()
        self._write_later()
        return found.grant()

    def in_force(self) -> list[Stored]:
        """Those that have not expired, by name."""
        return sorted((each for each in self._by_name.values() if not self._expired(each)), key=_name)

    async def create(self, rights: Rights, lifetime_ms: int | None) -> tuple[Stored, str]:
        """A new grant, durable by now, and its token, which is known to nobody else and nowhere kept.

        Raises InvalidRequest (also name-taken, too-large), LimitReached, Unavailable: then there is none.
        """
        _check(rights, lifetime_ms)
        return await self._whole(self._create(rights, lifetime_ms))

    async def revoke(self, name: str) -> None:
        """In force when this is called, durable when it returns. Raises NotFound; Unavailable where it is in
        force and could not be written, which is tried again."""
        key = grantfile.key_of(name)
        stored = self._by_name.get(key)
        if stored is None and key not in self._revoked:
            raise NotFound(f"There is no token {name!r}", hint="mhnos-runtime token list has all")
        if stored is not None:
            self._revoked.add(key)
            self._drop(stored)
        try:
            await self._whole(self._write())
        except Unavailable as error:
            text = f"The token is revoked, but only until the runtime is started again. {error.message}"
            raise Unavailable(text, hint=f"{error.hint}; then revoke it once more") from error

    async def close(self) -> None:
        """Write what is only in memory."""
        self._looking.cancel()
        if self._timer is not None:
            self._timer.cancel()
            self._begin(self._write_down())
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _load(self) -> None:
        grants, problem = self._file.load()
        if problem:
            _log.error("the stored grants cannot be used; there are none now", problem=problem)
        for each in grants:
            if each.processes is None or each.server_id == self._server_id:
                self._put(each)

    def _put(self, stored: Stored) -> None:
        self._by_name[grantfile.key_of(stored.name)] = self._by_digest[stored.digest] = stored

    def _drop(self, stored: Stored) -> None:
        """With what goes on under it."""
        del self._by_name[grantfile.key_of(stored.name)], self._by_digest[stored.digest]
        self._live.end(grantfile.principal(stored.name))

    async def _create(self, rights: Rights, lifetime_ms: int | None) -> tuple[Stored, str]:
        secret = secrets.token_urlsafe(TOKEN_BYTES)
        async with self._writing:
            now = self._now_ms()
            stored = Stored(
                **msgspec.structs.asdict(rights),
                digest=digest_of(secret).hex(),
                created=now,
                expires=None if lifetime_ms is None else now + lifetime_ms,
                server_id=None if rights.processes is None else self._server_id,
            )
            self._check_room(stored)
            await self._save([*self.in_force(), stored])
            self._put(stored)
        return stored, secret

    def _check_room(self, stored: Stored) -> None:
        if not stored.fits():
            raise InvalidRequest("Too many processes, paths or ports for one grant", code="too-large")
        for expired in [each for each in self._by_name.values() if self._expired(each)]:
            self._drop(expired)
        alike = self._by_name.get(grantfile.key_of(stored.name))
        if alike is not None:
            raise InvalidRequest(
                f"There is a token of the name {alike.name!r}", code="name-taken", hint="choose another name"
            )
        if len(self._by_name) >= grantfile.MAX_GRANTS:
            raise LimitReached(f"There are {grantfile.MAX_GRANTS} tokens already", hint="revoke some")

    # The file

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _whole(self, work: Coroutine[Any, Any, T]) -> T:
        """To its end, also when whoever asked has left: two writers at once would leave the older state."""
        return await asyncio.shield(self._begin(work))

    async def _write(self) -> None:
        async with self._writing:
            await self._save(self.in_force())

    async def _save(self, grants: Iterable[Stored]) -> None:
        """In a thread: fsync takes as long as the disk does."""
        copies, revoked = [msgspec.structs.replace(each) for each in grants], self._revoked.copy()
        self._unsaved = True
        try:
            await self._loop.run_in_executor(None, self._file.save, copies)
        except Exception:
            self._write_later()
            raise
        self._unsaved = False
        self._revoked -= revoked

    def _write_later(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(WRITE_SECONDS, self._write_now)

    def _write_now(self) -> None:
        self._timer = None
        self._begin(self._write_down())

    async def _write_down(self) -> None:
        try:
            await self._write()
        except Unavailable as error:
            _log.warning("the stored grants could not be written", problem=error.message)

    def _look(self) -> None:
        """A file that somebody else changed is written anew. One that could not be written waits its time."""
        self._looking = self._loop.call_later(LOOK_SECONDS, self._look)
        if not self._unsaved and self._file.changed():
            if self._loop.time() - self._reported_at >= REPORT_SECONDS:
                self._reported_at = self._loop.time()
                _log.warning("the file of the stored grants was changed, and is written anew")
            self._begin(self._write_down())

    def _expired(self, stored: Stored) -> bool:
        return stored.expires is not None and stored.expires <= self._now_ms()

    def _now_ms(self) -> int:
        return round(self._now() * 1000)


def _name(stored: Stored) -> str:
    return stored.name


def _check(rights: Rights, lifetime_ms: int | None) -> None:
    """What the types do not say. Raises InvalidRequest."""
    if not grantfile.NAME.match(rights.name):
        raise InvalidRequest(f"name: expected {grantfile.NAME_ALLOWED}")
    if lifetime_ms is not None and not 0 < lifetime_ms <= MAX_LIFETIME_MS:
        raise InvalidRequest(f"lifetimeMs: expected 1 to {MAX_LIFETIME_MS}")
    for path in rights.paths or ():
        parts = path[1:].split("/")
        if {".", ".."} & set(parts) or "" in parts[:-1] or not path.isprintable():
            raise InvalidRequest("paths: expected paths of the workspace such as /src, without . and ..")
