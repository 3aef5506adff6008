"""The route of settings over a real socket: for the operator alone, with what waits in the file."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mhnos_runtime import config
from mhnos_runtime.server.api.settings import SettingsRoute
from mhnos_runtime.server.auth.grants import EVERYTHING, Grant, Scope
from mhnos_runtime.server.auth.live import Live
from tests.server.http.site import Some, serve


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text("max_processes = 7\n")
    return path


@pytest.fixture
def settings(file: Path) -> config.Settings:
    return config.load({"config": str(file), "port": "0"})[0]


async def test_the_operator_sees_what_is_in_force_and_what_waits(
    file: Path, settings: config.Settings
) -> None:
    manager = Grant("token:manager", frozenset(Scope))
    async with (
        serve(
            SettingsRoute(settings).rows(), Some(EVERYTHING, manager), Live(asyncio.get_running_loop())
        ) as at,
        aiohttp.ClientSession() as session,
    ):

        async def ask(token: str = "operator") -> tuple[int, Any]:
            headers = {"Authorization": f"Bearer {token}"}
            async with session.get("http://{}:{}/v1/settings".format(*at), headers=headers) as response:
                return response.status, await response.json()

        status, told = await ask()
        rows = {row["name"]: (row["value"], row["source"]) for row in told["settings"]}
        assert (status, told["changes"]) == (200, [])
        assert rows["port"] == ("0", "flag --port")
        assert rows["max_processes"] == ("7", f"file {file}:max_processes")
        file.write_text('max_processes = 8\nport = 1\nallow_host = ["box.example"]\n')
        assert [(each["name"], each["new"], each["reloads"]) for each in (await ask())[1]["changes"]] == [
            ("max_processes", "8", False),
            ("allow_host", "box.example", True),
        ]
        file.write_text("max_processes = none\n")
        told = (await ask())[1]
        assert "is not TOML" in told["problem"]
        assert told["changes"] == []
        assert (await ask("manager"))[0] == 403
        assert (await ask("wrong"))[0] == 401
