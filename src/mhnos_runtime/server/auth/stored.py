"""Stored grants: made, listed, revoked, and found by their token. The only writer of their file.

Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections.abc import Callable

import msgspec

from mhnos_runtime.errors import InvalidRequest, LimitReached, MhnosError, NotFound
from mhnos_runtime.observe import logs
from mhnos_runtime.server.auth import grantfile
from mhnos_runtime.server.auth.grantfile import GrantFile, Rights, Stored
from mhnos_runtime.server.auth.grants import Grant
from mhnos_runtime.server.auth.live import Live
from mhnos_runtime.server.auth.token import MAX_TOKEN_CHARS, TOKEN_BYTES, digest_of

#: How long the last use of a grant is only in memory (debounced): a client that reconnects must not cost a
#: write each time.
LAST_USE_SECONDS = 60.0
#: Ten years: what is to last longer has no end.
MAX_LIFETIME_MS = 10 * 366 * 86_400_000

_log = logs.get("server")


class StoredGrants:
    """now: seconds since the epoch."""

    def __init__(
        self,
        file: GrantFile,
        live: Live,
        loop: asyncio.AbstractEventLoop,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._file = file
        self._live = live
        self._loop = loop
        self._now = now
        self._writing = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        grants, problem = file.load()
        self._grants = {grantfile.key_of(each.name): each for each in grants}
        if problem:
            _log.error("the stored grants cannot be used; there are none now", problem=problem)

    def find(self, candidate: str) -> Grant | None:
        """What this token grants at this moment. Each is compared, in constant time."""
        if len(candidate) > MAX_TOKEN_CHARS:
            return None
        digest, found = digest_of(candidate).hex(), None
        for each in self._grants.values():
            if hmac.compare_digest(each.digest, digest):
                found = each
        if found is None or self._expired(found):
            return None
        found.last_used = self._now_ms()
        if self._timer is None:
            self._timer = self._loop.call_later(LAST_USE_SECONDS, self._note_use)
        return found.grant()

    def in_force(self) -> list[Stored]:
        """Those that have not expired, by name."""
        return sorted((each for each in self._grants.values() if not self._expired(each)), key=_name)

    async def create(self, rights: Rights, lifetime_ms: int | None) -> tuple[Stored, str]:
        """A new grant, durable by now, and its token, which is known to nobody else and nowhere kept.

        Raises InvalidRequest (also name-taken, too-large), LimitReached, Unavailable.
        """
        _check(rights, lifetime_ms)
        secret = secrets.token_urlsafe(TOKEN_BYTES)
        async with self._writing:
            now = self._now_ms()
            stored = Stored(
                **msgspec.structs.asdict(rights),
                digest=digest_of(secret).hex(),
                created=now,
                expires=None if lifetime_ms is None else now + lifetime_ms,
            )
            if len(msgspec.json.encode(stored)) > grantfile.MAX_GRANT_BYTES:
                raise InvalidRequest("Too many processes, paths or ports for one grant", code="too-large")
            self._check_room(stored)
            await self._save([*self.in_force(), stored])
            self._grants[grantfile.key_of(stored.name)] = stored
        return stored, secret

    async def revoke(self, name: str) -> None:
        """In force when this is called, durable when it returns. Raises NotFound; Unavailable where the next
        server will know the grant again."""
        stored = self._grants.pop(grantfile.key_of(name), None)
        if stored is None:
            raise NotFound(f"There is no token {name!r}", hint="mhnos-runtime token list has all")
        self._live.end(grantfile.principal(stored.name))
        async with self._writing:
            await self._save(self.in_force())

    async def close(self) -> None:
        """Write what is only in memory."""
        if self._timer is not None:
            self._timer.cancel()
            self._note_use()
        if self._task is not None:
            await self._task

    def _check_room(self, stored: Stored) -> None:
        alike = self._grants.get(grantfile.key_of(stored.name))
        if alike is not None and not self._expired(alike):
            raise InvalidRequest(
                f"There is a token of the name {alike.name!r}", code="name-taken", hint="choose another name"
            )
        if len(self.in_force()) >= grantfile.MAX_GRANTS:
            raise LimitReached(f"There are {grantfile.MAX_GRANTS} tokens already", hint="revoke some")
        for key in [key for key, each in self._grants.items() if self._expired(each)]:
            del self._grants[key]

    async def _save(self, grants: list[Stored]) -> None:
        """In a thread: fsync takes as long as the disk does."""
        await self._loop.run_in_executor(None, self._file.save, [msgspec.structs.replace(g) for g in grants])

    def _note_use(self) -> None:
        self._timer = None
        self._task = self._loop.create_task(self._write_use())

    async def _write_use(self) -> None:
        async with self._writing:
            try:
                await self._save(self.in_force())
            except MhnosError as error:
                _log.warning("the last use of tokens could not be written", problem=str(error))

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
