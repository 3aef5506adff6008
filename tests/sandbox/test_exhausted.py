"""A supervisor that has no descriptor left starts no sandbox, and loses nothing. Knows no mechanism."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from mhnos_runtime.sandbox.facts import HostFacts
from mhnos_runtime.supervisor.descriptors import KEPT_DESCRIPTORS, SANDBOX_DESCRIPTORS, START_DESCRIPTORS
from tests.sandbox.conftest import require
from tests.sandbox.test_ending import serving
from tests.server.client import Client, eventually

#: More than a start needs and leaves free.
MOST_NEEDED = START_DESCRIPTORS + SANDBOX_DESCRIPTORS + KEPT_DESCRIPTORS + 40


async def start(client: Client, network: str) -> bool:
    """Whether it was started; then it ran as it should."""
    options = {"processType": "shell", "command": "exit 3", "pty": False, "network": network}
    answer = await client.ask("spawn", **options)
    if answer["type"] == "error":
        assert (answer["code"], answer["retry"]) == ("start-failed", True)
        return False
    assert (await client.exit(answer["pid"]))["code"] == 3
    return True


@pytest.mark.parametrize("network", ["host", "loopback", "none"])
async def test_no_descriptor_left(facts: HostFacts, folder: Path, network: str) -> None:
    require(facts, "strict")
    async with serving(folder, "strict") as (server, client):
        # Of another network, so that the one in question has to be made when there is no room.
        other = "none" if network != "none" else "host"
        bystander = await client.run("echo up; exec sleep 600", network=other)
        await client.text(bystander, "up")
        descriptors = Path(f"/proc/{server.pid}/fd")
        before = len(os.listdir(descriptors))
        highest = max(map(int, os.listdir(descriptors))) + 1
        limits = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
        started = []
        for room in range(0, MOST_NEEDED, 4):
            resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (highest + room, limits[1]))
            started.append(await start(client, network))
        assert started.count(False) > 10
        assert started[-1]
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limits)
        assert await start(client, network)
        (row,) = (await client.ask("list"))["processes"]
        assert row["pid"] == bystander

        async def given_back() -> bool:
            """But for two a log, a shared network's holder, and what is prepared for the next start."""
            return len(os.listdir(descriptors)) <= before + 2 * (sum(started) + 1) + 10

        await eventually(given_back)
