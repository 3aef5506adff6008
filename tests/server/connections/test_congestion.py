"""A client whose requests are more than the supervisor takes: it waits, and nobody else does."""

from __future__ import annotations

from tests.server.connections.scene import Client, Scene
from tests.server.processes.scene import turns


def signals(client: Client, count: int, pid: int = 1000) -> None:
    for _ in range(count):
        client.send("kill", pid=pid, signal="SIGCONT", escalate=False)


async def test_who_sends_too_much_waits_for_room_and_loses_nothing(scene: Scene) -> None:
    client, other = await scene.client(), await scene.client()
    scene.program()
    scene.link.congested = True
    signals(client, 5)
    client.send("inspect", pid=1000)
    await turns()
    assert (len(scene.link.called), len(client.of("killed")), client.of("inspected")) == (1, 1, [])
    other.send("inspect", pid=1000)
    await other.until("inspected")
    scene.link.congested = False
    other.send("resize", pid=1000, cols=80, rows=24)
    await other.answered()
    scene.link.make_room()
    await client.until("inspected")
    assert len(client.of("killed")) == 5
    assert [name for name, *_ in scene.link.called] == ["kill"] * 5


async def test_it_waits_again_and_again(scene: Scene) -> None:
    client = await scene.client()
    scene.program()
    signals(client, 3)
    await client.until("killed", 3)
    for done in range(3):
        scene.link.congested = True
        signals(client, 2)
        await turns()
        assert len(scene.link.called) == 4 + 2 * done
        scene.link.make_room()
        await client.until("killed", 5 + 2 * done)


async def test_what_waits_of_a_client_that_is_gone_is_not_done(scene: Scene) -> None:
    scene.program()
    client = await scene.client()
    scene.link.congested = True
    signals(client, 5)
    await client.vanish()
    scene.link.make_room()
    assert len(scene.link.called) == 1


async def test_nor_of_one_whose_grant_has_ended(scene: Scene) -> None:
    scene.program()
    client = await scene.client()
    scene.link.congested = True
    signals(client, 5)
    client.connection.end(1008)
    scene.link.make_room()
    await client.until_closed()
    assert len(scene.link.called) == 1
