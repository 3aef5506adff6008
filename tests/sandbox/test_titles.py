"""What ps on the host shows of a runtime with processes in sandboxes."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mhnos_runtime import title
from mhnos_runtime.proc import descendants
from mhnos_runtime.sandbox.facts import HostFacts
from mhnos_runtime.testing import TestServer
from tests.sandbox.conftest import place, require
from tests.server.client import connect


@pytest.fixture
def folder() -> Iterator[Path]:
    made = place()
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.mark.timeout(60)
async def test_ps_names_the_runtime_and_shows_no_options(folder: Path, facts: HostFacts) -> None:
    """It showed 2.5 kB of options for each process, and told each sandbox paths of the host."""
    require(facts, "strict")
    async with TestServer(folder, "--sandbox", "strict") as server, connect(server) as client:
        pid = await client.run("cat /proc/1/cmdline; echo; exec sleep 1000")
        await client.text(pid, "sandbox")
        assert client.output(pid).startswith("mhnos-runtime: sandbox")
        shown = await asyncio.to_thread(command_lines, server.pid)
        assert shown.pop(server.pid) == "mhnos-runtime: supervisor"
        assert "mhnos-runtime: server" in shown.values()
        assert sum(line.startswith("mhnos-runtime: sandbox --args ") for line in shown.values()) >= 2
        assert max(map(len, shown.values())) < 100, shown
        assert await asyncio.to_thread(title.has, server.pid, title.SUPERVISOR)


def command_lines(os_pid: int) -> dict[int, str]:
    """Of a process and all its descendants, without those that have ended."""
    found = {}
    for each in (os_pid, *descendants([os_pid])):
        try:
            found[each] = Path(f"/proc/{each}/cmdline").read_text().rstrip("\0").replace("\0", " ")
        except OSError:
            continue
    return found
