"""What a stranger is told, and in what form, over a real socket."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import aiohttp

from mhnos_runtime.process.table import ProcessTable
from mhnos_runtime.server.api.health import Health
from mhnos_runtime.server.auth.live import Live
from tests.server.http.site import Some, serve


async def test_health_is_counts_and_no_more() -> None:
    table = SimpleNamespace(total_spawned=3, active=1)
    rows = Health(cast(ProcessTable, table)).rows()
    async with (
        serve(rows, Some(), Live(asyncio.get_running_loop())) as address,
        aiohttp.ClientSession() as session,
    ):
        url = "http://{}:{}/health".format(*address)
        seen: list[dict[str, Any]] = []
        for _ in range(2):
            async with session.get(url) as response:
                assert response.status == 200
                seen.append(await response.json())
        async with session.head(url) as response:
            assert (response.status, await response.read()) == (200, b"")
        async with session.post(url) as response:
            assert response.status == 401
    uptimes = [each.pop("uptime") for each in seen]
    assert 0 <= uptimes[0] <= uptimes[1]
    assert seen == [{"status": "ok", "processes": {"totalSpawned": 3, "totalKilled": 2, "active": 1}}] * 2
