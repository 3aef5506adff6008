"""The routes of stored grants, for the operator alone: list, create, revoke."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta

from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.server.auth.grantfile import Rights, Stored
from mhnos_runtime.server.auth.grants import Access
from mhnos_runtime.server.auth.stored import MAX_LIFETIME_MS, StoredGrants
from mhnos_runtime.server.http.call import Call
from mhnos_runtime.server.http.routes import About, Reply, Row

#: What holds a secret stays in no cache (RFC 9111, 5.2.2.5).
_NOT_KEPT = {"Cache-Control": "no-store"}


class Wanted(Rights, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """The body of a creation. read_only: again, since a field that is inherited keeps its other name."""

    read_only: bool = False
    lifetime_ms: Annotated[int, Meta(ge=1, le=MAX_LIFETIME_MS)] | None = None


_SHOWN = {"type": "object", "required": ["name", "scopes", "created", "expires", "lastUsed"]}
_LIST = About(
    "Tokens for others, without their secrets",
    gives={
        200: Reply(
            "Those that are in force",
            "application/json",
            {
                "type": "object",
                "required": ["tokens"],
                "properties": {"tokens": {"type": "array", "items": _SHOWN}},
            },
        )
    },
)
_CREATE = About(
    "Make a token for somebody else",
    takes={"application/json": Wanted},
    gives={201: Reply("`token` is the secret, which is never shown again", "application/json", _SHOWN)},
)
_REVOKE = About("Revoke a token, and end what goes on with it", gives={204: Reply("It is in force no more")})


class TokenRoutes:
    def __init__(self, stored: StoredGrants) -> None:
        self._stored = stored

    def rows(self) -> tuple[Row, ...]:
        return (
            Row("GET", "/v1/tokens", Access.OPERATOR, self._list, about=_LIST),
            Row("POST", "/v1/tokens", Access.OPERATOR, self._create, about=_CREATE),
            Row("DELETE", "/v1/tokens/{name}", Access.OPERATOR, self._revoke, about=_REVOKE),
        )

    async def _list(self, _call: Call) -> web.Response:
        return web.json_response(
            {"tokens": [_shown(each) for each in self._stored.in_force()]}, headers=_NOT_KEPT
        )

    async def _create(self, call: Call) -> web.Response:
        try:
            wanted = msgspec.json.decode(await call.request.read(), type=Wanted)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"Not a token that can be made: {error}") from None
        rights = Rights(**{name: getattr(wanted, name) for name in Rights.__struct_fields__})
        stored, secret = await self._stored.create(rights, wanted.lifetime_ms)
        return web.json_response({**_shown(stored), "token": secret}, status=201, headers=_NOT_KEPT)

    async def _revoke(self, call: Call) -> web.Response:
        await self._stored.revoke(call.params["name"])
        return web.Response(status=204)


def _shown(stored: Stored) -> dict[str, Any]:
    """All that may be seen of a grant; null: no limit, no end, never used."""
    return {
        "name": stored.name,
        "scopes": stored.scopes,
        "processes": stored.processes,
        "paths": stored.paths,
        "ports": stored.ports,
        "readOnly": stored.read_only,
        "created": stored.created,
        "expires": stored.expires,
        "lastUsed": stored.last_used,
    }
