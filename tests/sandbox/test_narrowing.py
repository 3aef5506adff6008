"""What a start with a narrower network is kept from, and what it is not: the workspace is the home of all."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mhnos_runtime.sandbox.facts import HostFacts
from tests.sandbox.conftest import require
from tests.sandbox.test_usable import serving

REACH = "import socket, sys\nsocket.create_connection(('127.0.0.1', int(sys.argv[1])), 5)\n"
PLANT = "echo 'python3 reach.py {port} && echo has-$((20 + 1))' >> $HOME/.bashrc"


@pytest.fixture
def service() -> Iterator[int]:
    """The port of a service of this machine, which only the machine's network leads to."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0), backlog=64)) as listening:
        yield listening.getsockname()[1]


@pytest.mark.parametrize("level", ["strict", "relaxed"])
async def test_a_narrow_process_plants_what_a_later_wide_shell_runs(
    facts: HostFacts, folder: Path, service: int, level: str
) -> None:
    """It gets out, and must: docs/threat-model.md says so, and what to do where that matters."""
    require(facts, level)
    async with serving(folder, level) as (server, client):
        (server.workspace / "reach.py").write_text(REACH)
        pid = await client.run(f"python3 reach.py {service}", network="none")
        assert (await client.exit(pid))["code"] == 1
        pid = await client.run(PLANT.format(port=service), network="none")
        assert (await client.exit(pid))["code"] == 0
        shell = await client.spawn("shell", "bash", pty={"cols": 80, "rows": 24})
        await client.text(shell, "has-21")
        # What runs it has no more than its own start gave it.
        narrowed = await client.spawn("shell", "bash", pty={"cols": 80, "rows": 24}, network="none")
        await client.send("write", pid=narrowed, data="echo end-$((1 + 1))\r")
        assert "has-21" not in await client.text(narrowed, "end-2")
