"""What has expired, removed by and by: trash, uploads. Knows when, not how."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mhnos_runtime.files.steps import Steps
from mhnos_runtime.server.files.work import FileWork

#: What has expired stays for so long at most, and a disk that is too full waits for so long.
PERIOD_SECONDS = 60.0


class Sweeper:
    """Sweeps at once, since a server may have left something half done, then each PERIOD_SECONDS. sweep: the
    steps of one time. defect: called with what nobody expects; the next sweep is tried all the same."""

    def __init__(
        self, sweep: Callable[[], Steps[None]], work: FileWork, defect: Callable[[Exception], None]
    ) -> None:
        self._sweep, self._work = sweep, work
        self._defect = defect
        self._task = asyncio.get_running_loop().create_task(self._run())

    def close(self) -> None:
        self._task.cancel()

    async def _run(self) -> None:
        while True:
            try:
                await self._work.run(self._sweep())
            except Exception as error:
                self._defect(error)
            await asyncio.sleep(PERIOD_SECONDS)
