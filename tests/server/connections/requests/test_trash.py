"""Requests about the trash: pages, and who has what."""

from __future__ import annotations

from dataclasses import replace

from mhnos_runtime.server.auth.grants import EVERYTHING
from tests.server.connections.requests.test_tree import ask
from tests.server.connections.scene import Scene


async def test_pages_from_the_latest_on(scene: Scene) -> None:
    client = await scene.client()
    removed = []
    for number in range(3):
        (scene.files / str(number)).touch()
        removed.append((await ask(client, "removeFile", path=f"/{number}"))["trash"])
    first = await ask(client, "listTrash", max=2)
    assert [each["id"] for each in first["items"]] == [removed[2], removed[1]]
    second = await ask(client, "listTrash", max=2, before=first["next"])
    assert [each["id"] for each in second["items"]] == [removed[0]]
    assert second.get("next") is None
    assert second["items"][0]["expires"] > second["items"][0]["removed"]


async def test_a_grant_has_what_was_in_its_folders(scene: Scene) -> None:
    for name in ("mine", "others"):
        (scene.files / name).mkdir()
        (scene.files / name / "f").touch()
    client = await scene.client()
    mine, other = [
        (await ask(client, "removeFile", path=f"/{name}/f"))["trash"] for name in ("mine", "others")
    ]
    limited = await scene.client(grant=replace(EVERYTHING, paths=("/mine",)))
    assert [each["id"] for each in (await ask(limited, "listTrash"))["items"]] == [mine]
    assert (await ask(limited, "restoreFile", item=other))["code"] == "not-found"
    assert (await ask(limited, "emptyTrash"))["items"] == 1
    assert (await ask(client, "restoreFile", item=other))["file"]["path"] == "/others/f"
