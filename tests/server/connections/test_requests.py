"""What becomes of a request whose client has left, without a server."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from mhnos_runtime.errors import StartFailed
from mhnos_runtime.server.connections.requests.processes import ProcessRequests
from mhnos_runtime.wire import messages as m


class Domain:
    """Starts what it is told to when it is told to. lingering: what was started for nobody."""

    def __init__(self) -> None:
        self.started: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.lingering: list[object] = []

    async def spawn(self, _request: m.Spawn) -> object:
        return await self.started

    def linger(self, process: object) -> None:
        self.lingering.append(process)


class Left:
    """The connection of a client that leaves while a process is started for it."""

    def __init__(self) -> None:
        self.domain = Domain()
        self.reported: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: self.reported.append(context))

    async def leave(self) -> asyncio.Task[Any]:
        """Gives what is still under way."""
        before = asyncio.all_tasks()
        domain = cast(Any, self.domain)
        requests = ProcessRequests(domain, domain, domain, domain)
        asking = asyncio.create_task(requests.spawn(cast(Any, self), m.Spawn()))
        await asyncio.sleep(0)
        [starting] = asyncio.all_tasks() - before - {asking}
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        return starting


async def test_what_was_started_for_one_who_has_left_is_watched_by_nobody() -> None:
    left = Left()
    starting = await left.leave()
    left.domain.started.set_result("process")
    await starting
    await asyncio.sleep(0)
    assert left.domain.lingering == ["process"]


async def test_a_start_that_fails_for_one_who_has_left_is_no_defect() -> None:
    left = Left()
    starting = await left.leave()
    left.domain.started.set_exception(StartFailed("x"))
    await asyncio.gather(starting, return_exceptions=True)
    await asyncio.sleep(0)
    assert (left.domain.lingering, left.reported) == ([], [])


async def test_a_server_that_ends_during_a_start_reports_no_defect() -> None:
    """Its loop cancels what is under way, and that was logged as an exception in a callback."""
    left = Left()
    starting = await left.leave()
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await asyncio.sleep(0)
    assert (left.domain.lingering, left.reported) == ([], [])
