"""The route of the settings that this server goes by, and of what waits in the configuration for a reload or
a new start: for the operator alone. They hold no secret."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from mhnos_runtime.config import ConfigError, Settings, describe, load_again
from mhnos_runtime.config.reload import changes
from mhnos_runtime.server.auth.grants import Access
from mhnos_runtime.server.http.call import Call
from mhnos_runtime.server.http.routes import About, Reply, Row

_ABOUT = About(
    "The settings that the server goes by, and what waits in the configuration",
    gives={
        200: Reply(
            "`changes`: by a reload or a new start. `problem`: why neither would work",
            "application/json",
            {"type": "object", "required": ["settings", "changes"]},
        )
    },
)


class SettingsRoute:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def rows(self) -> tuple[Row, ...]:
        return (Row("GET", "/v1/settings", Access.OPERATOR, self._show, about=_ABOUT),)

    async def _show(self, _call: Call) -> web.Response:
        shown = [
            {"name": row.name, "value": row.value, "source": row.source} for row in describe(self._settings)
        ]
        # The file may be on a disk that hangs.
        waiting = await asyncio.to_thread(_waiting, self._settings)
        return web.json_response({"settings": shown, **waiting}, headers={"Cache-Control": "no-store"})


def _waiting(settings: Settings) -> dict[str, Any]:
    """What a reload or a start would change, or why neither would work."""
    try:
        found = load_again(settings)
    except ConfigError as error:
        return {"changes": [], "problem": error.message, "hint": error.hint}
    return {"changes": [each._asdict() for each in changes(settings, found)]}
