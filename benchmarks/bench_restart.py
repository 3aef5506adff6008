"""The server killed while 100 processes are busy: when each client has output again, and what it missed."""

import asyncio
import contextlib
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from mhnos_runtime.client import Output, Runtime, connect
from mhnos_runtime.testing import TestServer

from .context import OURS, Context
from .measure import median
from .result import Figure

_PROCESSES = 100
# 20 lines a second, numbered: what is missing or comes twice shows.
_BUSY = "exec perl -e '$| = 1; while (1) { print ++$n, qq(\\n); select(undef, undef, undef, 0.05) }'"


class Viewer:
    """One client with its own connection, that checks each line it gets."""

    def __init__(self) -> None:
        self.lines = 0
        self.wrong = 0
        self.first_after = 0.0
        self._rest = b""
        self._from_s = float("inf")

    def expect_after(self, killed_s: float) -> None:
        self._from_s, self.first_after = killed_s, 0.0

    async def follow(self, runtime: Runtime) -> None:
        process = await runtime.spawn("shell", _BUSY, pty=False)
        async for item in process.output():
            now = time.monotonic()
            if not isinstance(item, Output):
                self.wrong += 1
                continue
            if not self.first_after and now > self._from_s and runtime.connected:
                self.first_after = now
            *lines, self._rest = (self._rest + item.data).split(b"\n")
            for line in lines:
                self.lines += 1
                self.wrong += int(line) != self.lines


@contextlib.asynccontextmanager
async def busy(folder: Path) -> AsyncIterator[tuple[TestServer, list[Viewer]]]:
    async with contextlib.AsyncExitStack() as stack:
        flags = ("--max-processes", "200", "--retention-bytes", "64k")
        server = await stack.enter_async_context(TestServer(folder, *flags))
        viewers, tasks = [Viewer() for _ in range(_PROCESSES)], []
        for viewer in viewers:
            runtime = await stack.enter_async_context(connect(server.url, server.token))
            tasks.append(asyncio.create_task(viewer.follow(runtime)))
        try:
            await until(lambda: all(viewer.lines > 5 for viewer in viewers))
            yield server, viewers
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: object) -> None:
    async with asyncio.timeout(60):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.005)


async def once(kills: int) -> tuple[list[float], int]:
    """Seconds from each kill to each client's next output; lines that were missing or doubled."""
    resumed: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        async with busy(Path(folder)) as (server, viewers):
            for _ in range(kills):
                # Longer than what makes a server one that crashes at once, and a connection a bad one.
                await asyncio.sleep(5.5)
                killed = time.monotonic()
                os.kill(server.server_pid(), signal.SIGKILL)
                # What was on its way already is no sign that anybody is back.
                await asyncio.sleep(0.05)
                for viewer in viewers:
                    viewer.expect_after(time.monotonic())
                await until(lambda: all(viewer.first_after for viewer in viewers))
                resumed += [viewer.first_after - killed for viewer in viewers]
            return resumed, sum(viewer.wrong for viewer in viewers)


def run(context: Context) -> list[Figure]:
    resumed, wrong = asyncio.run(once(context.pick(10, 2)))
    middle = Figure(
        f"output again after a kill with {_PROCESSES} busy processes, median", "s", {OURS: median(resumed)}
    )
    middle.demand("under 1.5 s", middle.values[OURS], "<", 1.5, "s")
    last = Figure("the last client of all", "s", {OURS: max(resumed)})
    missed = Figure("lines missing or doubled", "", {OURS: float(wrong)})
    missed.demand("none", missed.values[OURS], "<=", 0.0)
    return [middle, last, missed]
