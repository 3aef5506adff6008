"""Requests about the server itself."""

from __future__ import annotations

import time

from mhnos_runtime.server.auth.grants import Grant, Scope
from tests.server.connections.scene import Scene


async def test_a_pong_says_when_it_is(scene: Scene) -> None:
    client = await scene.client()
    before = time.time()
    client.send("ping", id="x")
    [pong] = client.of("pong")
    assert (pong["id"], before - 1 <= pong["time"] / 1000 <= time.time() + 1) == ("x", True)


async def test_a_client_of_1_0_gets_its_pong_twice_if_it_waits_for_an_id(scene: Scene) -> None:
    client = await scene.client(newer=False)
    client.send("ping", id="x")
    client.send("ping")
    assert client.types()[1:] == ["pong", "status", "pong"]


async def test_the_status_has_the_settings_and_counts(scene: Scene) -> None:
    scene.program(1000)
    scene.program(1001).end()
    client = await scene.client()
    client.send("status", id=3)
    [status] = client.of("status")
    assert status["stats"] == {"totalSpawned": 2, "totalKilled": 1, "active": 1}
    assert status["config"]["sandboxMode"] == "none"
    assert status["config"]["maxProcesses"] == 50
    assert status["id"] == 3


async def test_any_grant_may_ping_and_only_a_view_may_see_the_status(scene: Scene) -> None:
    client = await scene.client(grant=Grant("x", frozenset({Scope.METRICS})))
    client.send("ping")
    client.send("status")
    assert client.types()[1:] == ["pong", "error"]
