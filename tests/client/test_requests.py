"""Requests by pid and by name, with a real server behind them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from mhnos_runtime.client import Events, Output, RequestFailed, Runtime, connect
from mhnos_runtime.testing import TestServer
from mhnos_runtime.wire import messages as m

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TestServer]:
    async with TestServer(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def runtime(server: TestServer) -> AsyncIterator[Runtime]:
    async with connect(server.url, server.token) as connected:
        yield connected


async def test_a_name_does_wherever_a_pid_does(runtime: Runtime) -> None:
    spawned = await runtime.spawn("shell", "echo here; read line", pty=False, name="by-name", attach=False)
    attached = await runtime.attach("by-name")
    assert attached.pid == spawned.pid
    with pytest.raises(ValueError, match="attached"):
        await runtime.attach(spawned.pid)
    assert (await runtime.find("by-name")) is attached
    assert (await runtime.inspect("by-name")).pid == await runtime.pid("by-name") == spawned.pid
    assert [row.pid for row in await runtime.stats("by-name")] == [spawned.pid]
    assert await runtime.rename("by-name", "renamed") == spawned.pid
    with pytest.raises(RequestFailed) as refused:
        await runtime.remove("renamed")
    assert refused.value.code == "still-running"
    await (await runtime.find("renamed")).kill()
    assert await (await runtime.find("renamed")).timeline()
    assert await runtime.rename("renamed", None) == spawned.pid
    assert (await runtime.inspect(spawned.pid)).name is None
    assert await runtime.remove(spawned.pid) == spawned.pid
    with pytest.raises(RequestFailed) as refused:
        await runtime.attach("by-name")
    assert refused.value.code == "unknown-process"


async def test_inspect_shows_the_limits(runtime: Runtime) -> None:
    process = await runtime.spawn("shell", "true", limits={"tasks": 50}, timeout_ms=5000)
    shown = await runtime.inspect(process.pid)
    assert isinstance(shown.limits, m.ProcessLimits)
    assert (shown.limits.tasks, shown.timeout_ms, shown.linger_ms) == (50, 5000, None)


async def event_of(events: Events, pid: int) -> m.ProcessEvent:
    """The next one about this process."""
    while True:
        event = await asyncio.wait_for(anext(events), 30)
        if isinstance(event.process, m.ProcessInfo) and event.process.pid == pid:
            return event


async def test_a_record_that_goes_at_the_end_shows_all_of_it_first(
    server: TestServer, runtime: Runtime
) -> None:
    async with runtime.events() as events:
        async with connect(server.url, server.token) as one:
            process = await one.spawn("shell", "echo all; exit 5", pty=False, remove=True)
            assert (await process.wait()).code == 5
            items = [item async for item in process.output()]
            assert items == [Output("stdout", 0, b"all\n")]
        found: list[str] = []
        while not found or found[-1] != "removed":
            found.append((await event_of(events, process.pid)).event)
        assert found == ["started", "ended", "removed"]


async def test_events_go_on_over_a_killed_server(server: TestServer, runtime: Runtime) -> None:
    """A list that is asked for after a "missed" closes the gap."""
    process = await runtime.spawn("shell", "read line", pty=False)
    async with runtime.events() as events:
        os.kill(server.server_pid(), signal.SIGKILL)
        while (await asyncio.wait_for(anext(events), 30)).event != "missed":
            pass
        assert process.pid in [row.pid for row in await runtime.list()]
        await process.kill()
        assert (await event_of(events, process.pid)).event == "ended"
